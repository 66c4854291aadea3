"""Networks whose layers carry no image, that have no modules, or that cannot be explained at all: which layer `auto` takes,
what operations are called, and what a refusal says. After public bug reports, as cases.py."""

import io
import typing
import zipfile

import torch
import torch.nn.functional as F
from torch import nn

ONE = (1, 1, 14, 18)
TWO = (2, 1, 14, 18)
VOLUME = (1, 1, 12, 10, 8)


class Padded(nn.Module):
    """A global pool, then a module that pads its single voxel: the same blob for every image."""

    def __init__(self, dims=2, pad=None):
        super().__init__()
        conv, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if dims == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
        self.c = conv(1, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.g = pool(1)
        self.pad = pad or (nn.ZeroPad2d(1) if dims == 2 else nn.ConstantPad3d(1, 0.0))
        self.d = conv(6, 6, 3)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.d(self.pad(self.g(self.r(self.c(x)))))).flatten(1))

    truth = forward


class Vector(nn.Module):
    """Draws an image from a single voxel: a transposed convolution behind a global mean."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.t = nn.ConvTranspose2d(6, 6, 4)
        self.a = nn.Softplus()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        f = self.r(self.c(x)).mean((2, 3), keepdim=True)
        return self.fc(self.a(self.t(f)).mean((2, 3)))

    truth = forward


class Crop(nn.Module):
    def forward(self, x):
        return x[:, :, 2:-1, 1:-3]


class Cropped(nn.Module):
    """Ends in a crop and an activation of it."""

    def __init__(self, last=None):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.k = last or Crop()
        self.a = nn.Sigmoid()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.a(self.k(self.r(self.c(x)))).mean((2, 3)))

    truth = forward


class OnlyPadding(Padded):
    """No layer but the padding has more than one voxel."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, (14, 18))


class Tokens(nn.Module):
    """Patches to tokens, mixed, and back to an image, as UNETR: the patches have the fewest voxels."""

    def __init__(self, dims=2, norm=False):
        super().__init__()
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        self.p = conv(1, 8, 4, 4)
        self.n = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.mix = nn.Linear(8, 8)
        self.up = up(8, 6, 2, 2)
        self.c = conv(6, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.out = up(6, 2, 2, 2)

    def forward(self, x):
        p = self.n(self.p(x))
        tokens = p.flatten(2).transpose(1, 2)
        tokens = tokens + torch.tanh(self.mix(tokens))
        return self.out(self.r(self.c(self.up(tokens.transpose(1, 2).reshape(p.shape)))))

    truth = forward


class Flip(nn.Module):
    def forward(self, x):
        return x.flip(3)


class Tailed(nn.Module):
    """A segmentation whose output is cropped, padded, moved or averaged: from `d` on the prediction is only redrawn."""

    def __init__(self, tail):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.d = nn.Conv2d(6, 6, 3, padding=1)
        self.h = nn.Conv2d(6, 3, 1)
        self.t = tail

    def forward(self, x):
        return self.t(self.h(self.d(self.r(self.c(x)))))

    truth = forward


class Redrawing(nn.Module):
    """A single convolution, resized and mixed: every layer redraws the output."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, 2, padding=1)
        self.r = nn.ReLU()
        self.u = nn.Upsample(scale_factor=2.0)
        self.o = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.o(self.u(self.r(self.c(x))))


class Functions(nn.Module):
    """A network of functions: `truth` is the same with modules, whose names the file does not have."""

    def __init__(self, dims=2, inplace=False, head=False):
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.c = conv(1, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.c2 = conv(6, 6, 3, padding=1)
        self.s = nn.Identity()
        self.fc = nn.Linear(6, 3)
        self.function = F.conv2d if dims == 2 else F.conv3d
        self.axes = list(range(2, dims + 2))
        self.inplace = inplace
        self.head = head

    def truth(self, x):
        f = self.r(self.c(x))
        return self.fc(torch.tanh(self.s(self.c2(f) + f)).mean(self.axes))

    def forward(self, x):
        f = F.relu(self.function(x, self.c.weight, self.c.bias, padding=1), inplace=self.inplace)
        g = self.function(f, self.c2.weight, self.c2.bias, padding=1)
        f = torch.tanh(g.add_(f) if self.inplace else g + f).mean(self.axes)
        return self.fc(f) if self.head else F.linear(f, self.fc.weight, self.fc.bias)


class PartlyFunctional(nn.Module):
    """One module early on, and functions behind it: its pool is not the last layer."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.d = nn.Conv2d(6, 6, 3, padding=1)
        self.e = nn.Conv2d(6, 6, 3, padding=1)
        self.s = nn.ReLU()
        self.fc = nn.Linear(6, 3)

    def truth(self, x):
        f = self.pool(torch.relu(self.c(x)))
        return self.fc(self.s(self.e(torch.relu(self.d(f)))).mean((2, 3)))

    def forward(self, x):
        f = self.pool(torch.relu(F.conv2d(x, self.c.weight, self.c.bias, padding=1)))
        f = torch.relu(F.conv2d(f, self.d.weight, self.d.bias, padding=1))
        f = torch.relu(F.conv2d(f, self.e.weight, self.e.bias, padding=1))
        return self.fc(f.mean((2, 3)))


class Listed(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images: typing.List[torch.Tensor]):
        return self.network(images[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.r = nn.ReLU()

    def forward(self, x):
        f = self.c(x)
        return [f, self.r(f)]


class Encoded(nn.Module):
    """An encoder that returns a list."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.encoder(x)[1].mean((2, 3)))


class Attention(nn.Module):
    """A transformer's layer over the voxels."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 8, 4, 4)
        self.t = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.t(self.c(x).flatten(2).transpose(1, 2)).mean(1))


class Sized(nn.Module):
    """Takes images of one size."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 8 * 8, 3)

    def forward(self, x):
        return self.fc(self.c(x).flatten(1))


def frozen(network, x):
    return torch.jit.freeze(torch.jit.script(network))


def frozen_trace(network, x):
    with torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(network, x))


def optimized(network, x):
    return torch.jit.optimize_for_inference(torch.jit.script(network))


def quantized(network, x):
    """Static quantisation, of convolutions too."""
    from torch.ao import quantization  # pylint: disable=import-outside-toplevel

    network = quantization.QuantWrapper(network)
    network.qconfig = quantization.get_default_qconfig("onednn")
    torch.backends.quantized.engine = "onednn"
    prepared = quantization.prepare(network)
    prepared(x)
    return torch.jit.trace(quantization.convert(prepared), x)


def quantized_head(network, x):
    """Dynamic quantisation, of linear layers alone."""
    from torch.ao import quantization  # pylint: disable=import-outside-toplevel

    torch.backends.quantized.engine = "onednn"
    return torch.jit.trace(quantization.quantize_dynamic(network, {nn.Linear}), x)


def traced_without_gradients(network, x):
    with torch.no_grad():
        return torch.jit.trace(network, x)


def scripted_with_list(network, x):
    return torch.jit.script(Listed(network))


def of_cuda(path):
    """As tracing on CUDA writes a device into a file."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith(".py"):
                content = content.replace(b'device("cpu")', b'device("cuda:0")')
            target.writestr(entry, content)


class Zeros(nn.Module):
    """Makes a tensor on the device that it is traced on."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)

    def forward(self, x):
        return self.c(x).mean((2, 3)) + torch.zeros(x.shape[0], 6, device=x.device)


def exported(path, network, x):
    """An archive of torch.export."""
    torch.export.save(torch.export.export(network, (x,)), path)


def cases(case, classifier):
    """All of them; `case` makes one, `classifier` is the plain network."""
    pick = "--layer "
    return [
        # `auto` takes no layer without an image.
        case("padded_voxel", Padded, ONE, ONE),
        case("padded_voxel_3d", lambda: Padded(3), VOLUME, VOLUME, label="1"),
        case("replicated_voxel", lambda: Padded(pad=nn.ReplicationPad2d(1)), TWO, TWO),
        case("padded_by_name", Padded, ONE, ONE, label="1", layer="pad", options=pick + "pad", warnings=("NO_IMAGE",)),
        case("only_padding", OnlyPadding, ONE, ONE, refused=("layer auto", "single voxel", "--layer pad")),
        case("drawn_from_a_vector", Vector, ONE, ONE),
        case("cropped", Cropped, ONE, ONE),
        case("resized", lambda: Cropped(nn.Upsample(scale_factor=2.0, mode="bilinear")), ONE, ONE),
        case("patches", Tokens, (1, 1, 16, 24), (1, 1, 16, 24), label="1"),
        case("patches_3d", lambda: Tokens(3), (1, 1, 8, 12, 16), (1, 1, 8, 12, 16), label="1"),
        case("patches_normed", lambda: Tokens(norm=True), (1, 1, 16, 24), (1, 1, 16, 24), label="0"),
        case("all_redraw", Redrawing, ONE, ONE, label="1", refused=("layer auto", "only redraws the output", "--layer c")),
        case("redrawn_and_cropped", lambda: Tailed(nn.ZeroPad2d(-2)), ONE, ONE, label="1"),
        case("redrawn_and_sliced", lambda: Tailed(Crop()), TWO, TWO, label="1"),
        case("redrawn_and_padded", lambda: Tailed(nn.ReflectionPad2d(3)), ONE, ONE, label="0"),
        case("redrawn_and_flipped", lambda: Tailed(Flip()), ONE, ONE, label="2"),
        case("redrawn_and_averaged", lambda: Tailed(nn.AvgPool2d(2)), ONE, ONE, label="1"),
        case("redrawn_by_name", lambda: Tailed(nn.ZeroPad2d(-2)), ONE, ONE, label="1", layer="d", options=pick + "d",
             warnings=("REDRAWS_OUTPUT",)),
        # Without modules, operations are layers.
        case("frozen", classifier, ONE, export=frozen),
        case("frozen_by_name", classifier, TWO, export=frozen, layer="c", options=pick + "conv2d.1"),
        case("frozen_trace_3d", lambda: Functions(3), VOLUME, export=frozen_trace, layer="s", options=pick + "add.1"),
        case("frozen_redraws", Redrawing, ONE, export=frozen, label="1", refused=("layer auto", "only redraws", "conv2d.1")),
        case("frozen_unknown", classifier, ONE, export=frozen, options=pick + "conv2d.2",
             refused=("'conv2d.2'", "none of this name", "conv2d.1", "relu.1")),
        case("functions", Functions, TWO, TWO, layer="s", options=pick + "add.1"),
        case("functions_in_place", lambda: Functions(inplace=True), ONE, ONE, layer="r", options=pick + "relu.1"),
        case("functions_of_3d", lambda: Functions(3, inplace=True), VOLUME, VOLUME, layer="s", options=pick + "add.1"),
        case("functions_and_a_head", lambda: Functions(head=True), ONE, ONE, label="2", layer="s", options=pick + "add.1"),
        case("functions_behind_a_pool", PartlyFunctional, ONE, ONE, label="1", layer="s"),
        case("functions_behind_a_pool_by_name", PartlyFunctional, TWO, TWO, label="0", layer="s", options=pick + "relu.3"),
        # Refusals that say what the file is, and what to do.
        case("takes_a_list", classifier, ONE, export=scripted_with_list, refused=("List[Tensor]", "Wrap the model")),
        case("traced_on_cuda", Zeros, ONE, ONE, edit=of_cuda, refused=("traced on cuda:0", "--device cuda")),
        case("exported", classifier, ONE, archive=exported, refused=("torch.export", "torch.jit.trace")),
        case("optimized", classifier, ONE, export=optimized, refused=("optimize_for_inference", "freeze")),
        case("quantized", classifier, ONE, export=quantized, refused=("quantised", "float network")),
        case("quantized_head", classifier, ONE, export=quantized_head, refused=("quantised", "float network")),
        case("quantized_guided", classifier, ONE, export=quantized_head, options="--backend gbp",
             refused=("quantised", "float network")),
        case("encoder_with_a_list", Encoded, ONE, options=pick + "encoder",
             refused=("'encoder'", "List[Tensor]", "encoder.r")),
        case("attention_fast_path", Attention, ONE, export=traced_without_gradients,
             refused=("_transformer_encoder_layer_fwd", "set_fastpath_enabled(False)")),
        case("of_another_size", Sized, ONE, (1, 1, 8, 8), refused=("[1, 1, 14, 18]", "no model card")),
    ]
