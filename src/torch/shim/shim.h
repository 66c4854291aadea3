// The C face of the TorchScript shim: what Rust sees, through bindgen. C types only.
//
// Functions that can fail return false and set *error to a message that the caller frees with
// mc_string_free; nothing is thrown across this boundary. An mc_tensor is libtorch's at::Tensor, as
// in torch-sys; one that a function hands out belongs to the caller.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mc_module mc_module;
typedef struct mc_tape mc_tape;
typedef struct mc_tensor mc_tensor;

// ---- boundary.cpp ----

// A copy that mc_string_free frees; NULL where memory is out.
char* mc_string_copy(const char* text);
void mc_string_free(char* text);

// ---- operators.cpp: what is known of single operators ----

size_t mc_operator_count(void);
const char* mc_operator_name(size_t index);
// Whether an operator is a ReLU where its numbers say so: one that MC_GUIDE_RELU guides.
bool mc_operator_is_like_relu(const char* name);

// ---- device.cpp ----

// The number of CUDA devices that libtorch can use; 0 without a driver or without libtorch_cuda.
int64_t mc_cuda_devices(void);

// The handle (a CUstream) of libtorch's current stream on a CUDA device; NULL is the default stream.
bool mc_cuda_stream(int64_t index, void** stream, char** error);

// A new tensor on the CPU of the shape and type of another, in memory that devices copy to and from by themselves.
bool mc_pinned(const mc_tensor* like, mc_tensor** empty, char** error);

// Asks the C allocator to keep freed memory for reuse; false where it cannot be asked.
bool mc_keep_freed_memory(void);

// ---- module.cpp: a loaded module, its forward, and its tapped forward ----

// cuda_index: -1 for the CPU.
bool mc_module_load(const char* path, int64_t cuda_index, mc_module** module, char** error);
void mc_module_free(mc_module* module);
// Of a model that returns several tensors: which one is meant, by number (else -1), by name (else ""), or
// the first. Strings of facts and taps read before are gone.
bool mc_module_choose_output(mc_module* module, int64_t index, const char* name, char** error);
// Has operations (convolutions, norms, activations, pools, sums) tapped too where no module is, or not, as when it
// was loaded. Strings read before are gone.
bool mc_module_tap_operations(mc_module* module, bool on, char** error);
// Converts parameters and buffers of floating point to another type: 'b' bfloat16, 'h' half, 'f' float. Strings read
// before are gone.
bool mc_module_convert(mc_module* module, char type, char** error);
bool mc_module_forward(mc_module* module, const mc_tensor* input, mc_tensor** output, char** error);
// Runs the tapped copy of forward; grad mode is the caller's to set and to restore.
bool mc_module_forward_tapped(mc_module* module, const mc_tensor* input, mc_tape* tape,
                              mc_tensor** output, char** error);
// As mc_module_forward_tapped for an input of the shape and type of `like`, but of shapes alone: nothing is
// computed, and the output is a tensor on the meta device. Fails where a step needs values.
bool mc_module_shapes(mc_module* module, const mc_tensor* like, mc_tape* tape, mc_tensor** output,
                      char** error);

// What is known of a module without running it. Strings live as long as the module.
typedef struct {
  // Channels and rank (with batch and channel axes) of the input, from the first step that demands them; 0
  // where the graph does not tell.
  int64_t input_channels;
  int64_t input_rank;
  // The scalar type that the input has to have ("Float", "Half", "BFloat16", ...), "" where nothing tells.
  const char* input_type;
  // The activation that ends the graph ("softmax", "sigmoid", ...), "" if none does.
  const char* final_activation;
  // A device other than the CPU that the graph names itself, "" if none.
  const char* device;
  // An operator of quantised tensors in the graph, "" if none.
  const char* quantized;
  // Whether a convolution leads to another with no submodule's output in between.
  bool bare_convolutions;
  // How many tensors forward returns; -1 where the graph does not tell.
  int64_t outputs;
  size_t taps;
  // Submodules that run and return no single tensor.
  size_t untapped;
  size_t activations;
  size_t training_steps;
  // The number of its submodules.
  size_t modules;
} mc_facts;
mc_facts mc_module_facts(const mc_module* module);

// The dotted name of a submodule, counted in the order in which they were registered.
const char* mc_module_name(const mc_module* module, size_t index);

// One tapped call of a submodule.
typedef struct {
  const char* name;
  const char* type;
  // Whether the score can depend on it.
  bool reaches_score;
  // Whether it lies between the score before a final activation and the output.
  bool follows_score;
  // Whether only pointwise steps separate it from the score.
  bool redraws_score;
  // Whether an instance norm behind it makes every channel's mean gradient zero.
  bool weights_cancel;
  // Whether its channels are on the last axis, as in transformers.
  bool channels_last;
  // Whether it is a product of matrices, such as attention weights, and no image.
  bool is_product;
  // Whether it only pads, crops or resizes what came before.
  bool regrids;
  // Whether it is the input cut into patches, each by the same convolution.
  bool embeds_patches;
  // Which run of its layer it is, as NAME#k; "" where the graph does not tell.
  const char* run;
  // How many runs of layers it comes from, where it comes from no other image; -1 where the input is behind it by
  // other ways, or the graph does not tell.
  int64_t sources;
} mc_tap;
mc_tap mc_module_tap(const mc_module* module, size_t index);
// A run of a layer that a tapped one comes from, as NAME#k.
const char* mc_module_tap_source(const mc_module* module, size_t tap, size_t index);

// A submodule that returns no single tensor, and what it returns, such as "List[Tensor]".
typedef struct {
  const char* name;
  const char* returns;
} mc_untapped;
mc_untapped mc_module_untapped(const mc_module* module, size_t index);

// An operator that can be guided, and how many of it the graph has.
typedef struct {
  const char* name;
  size_t count;
} mc_activation;
mc_activation mc_module_activation(const mc_module* module, size_t index);

// An operator that acts as in training whatever the mode of the module, and how many of it the graph has.
typedef struct {
  const char* name;
  size_t count;
  // Whether it draws random numbers; else it normalises with the statistics of its batch.
  bool is_random;
} mc_training;
mc_training mc_module_training(const mc_module* module, size_t index);

// ---- tape.cpp: what one run records ----

mc_tape* mc_tape_new(void);
void mc_tape_free(mc_tape* tape);
// Asks for the activation of the run-th (from 1) run of a layer, or of its last (0).
bool mc_tape_want(mc_tape* tape, const char* name, int64_t run, char** error);
// Passes the output of a layer through the tape; for models written in Rust.
bool mc_tape_tap(mc_tape* tape, const char* name, const mc_tensor* x, mc_tensor** y, char** error);
// Notes the tensor that the score is taken from, where that is not the output.
bool mc_tape_score(mc_tape* tape, const mc_tensor* x, mc_tensor** y, char** error);
// Whether the run of the layer that the index-th wish asked for happened.
bool mc_tape_recorded(const mc_tape* tape, size_t index);
// The first wish that recorded the same tensor as the index-th: a module often returns what its last
// child returned.
size_t mc_tape_same(const mc_tape* tape, size_t index);
// The tensor noted as the score's, or NULL.
mc_tensor* mc_tape_noted_score(const mc_tape* tape);

// One run of a layer, in the order in which the runs ended.
typedef struct {
  const char* name;
  const int64_t* sizes;
  size_t rank;
  bool is_floating_point;
} mc_seen;
size_t mc_tape_seen_count(const mc_tape* tape);
mc_seen mc_tape_seen(const mc_tape* tape, size_t index);

// ---- guided.cpp: guided backpropagation ----

// Which activations are guided: none, ReLU and what equals it, or the smooth and leaky ones too.
typedef enum { MC_GUIDE_NONE = 0, MC_GUIDE_RELU = 1, MC_GUIDE_ALL = 2 } mc_guide;
void mc_tape_guide(mc_tape* tape, mc_guide guide);
// Whether backwards to come take the guided rule or the true derivative, after the same forward.
void mc_tape_set_guided(const mc_tape* tape, bool guided);
// A rule for guided ReLUs: the part of a gradient that passes. `output` is that of the activation, which is
// positive where its input is. Fails as the functions here do, with an *error from mc_string_copy; may be called
// by several threads at once.
typedef bool (*mc_gate)(void* context, const mc_tensor* gradient, const mc_tensor* output,
                        mc_tensor** passed, char** error);
typedef void (*mc_gate_drop)(void* context);
// Has the ReLUs of the forward to come guided by a rule of the caller's. Takes `context` over, and has it
// dropped when no backward can use it any more, in whichever thread; also when this fails.
bool mc_tape_gate(mc_tape* tape, mc_gate gate, void* context, mc_gate_drop drop, char** error);
// How many activations ran so that they can be guided.
size_t mc_tape_guided_activations(const mc_tape* tape);
// A ReLU that can be guided; for models written in Rust.
bool mc_tape_relu(mc_tape* tape, const mc_tensor* x, mc_tensor** y, char** error);

// ---- backward.cpp: from a score back to what a tape recorded ----

// Takes an activation and its gradient, which are the caller's of mc_tape_backward.
typedef void (*mc_gradient)(void* context, size_t index, const mc_tensor* activation,
                            const mc_tensor* gradient);
// Runs autograd from a score back to the activations, and hands each out with its gradient as soon as
// that is there: once per tensor, by its first wish; one at a time, but in any thread. `start` is the input
// where the tape starts there, else NULL. Without `keep` the tape and each activation are let go on the way.
bool mc_tape_backward(mc_tape* tape, const mc_tensor* score, const mc_tensor* start, bool keep,
                      mc_gradient gradient, void* context, char** error);
// How many convolutions compute the gradient of some of their input's channels only, as the others need none.
size_t mc_tape_narrowed(const mc_tape* tape);

#ifdef __cplusplus
}
#endif
