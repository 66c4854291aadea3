"""What the maps must be: Grad-CAM by plain autograd and forward hooks, with nothing of medcam's."""

import copy

import torch
from torch.nn import functional as F


def logits_of(model, x):
    """The output before a trailing softmax or sigmoid."""
    return model.logits(x) if hasattr(model, "logits") else model(x)


def score_of(output, label):
    """One number: the sum over the batch of each sample's class score."""
    if label == "best":
        return output.max(dim=1).values.sum()
    return output[:, label].sum()


class Run:
    """One forward and backward pass of `model`: every module's outputs and their gradients.

    `outputs[module]` lists a module's outputs in the order of its runs, and `events` all
    (module, run) in the order in which they complete: a module after its children. `output(model, x)`,
    where given, is what the score is taken from. With `copies` the network goes on with copies of its
    activations, so that it may write over them.
    """

    def __init__(self, model, x, label, score="logits", output=None, copies=False):
        self.copies = copies
        self.outputs = {}
        self.events = []
        self.versions = {}
        hooks = [
            module.register_forward_hook(self._keep) for module in model.modules() if module is not model
        ]
        self.size = x.shape[2:]
        x = x.clone().requires_grad_(True)
        output = (output or (logits_of if score == "logits" else torch.nn.Module.__call__))(model, x)
        for hook in hooks:
            hook.remove()
        tensors = {id(t): t for kept in self.outputs.values() for t in kept if torch.is_tensor(t)}
        wanted = [tensor for tensor in tensors.values() if tensor.requires_grad]
        changed = [tensor for tensor in wanted if tensor._version != self.versions[id(tensor)]]
        assert not changed, "the network writes over an activation: not an out-of-place twin"
        gradients = torch.autograd.grad(score_of(output, label), wanted, allow_unused=True)
        self.gradients = {id(t): g for t, g in zip(wanted, gradients) if g is not None}

    def _keep(self, module, _inputs, output):
        if torch.is_tensor(output):
            self.versions.setdefault(id(output), output._version)
        self.outputs.setdefault(module, []).append(output)
        self.events.append((module, len(self.outputs[module])))
        return output.clone() if self.copies and torch.is_tensor(output) else None

    def has_map(self, module, run):
        """Whether the output has an extent above 1 in every spatial axis and reaches the score."""
        output = self.outputs[module][run - 1]
        if not torch.is_tensor(output) or output.dim() != len(self.size) + 2:
            return False
        return min(output.shape[2:]) > 1 and id(output) in self.gradients

    def map(self, module, run, channels_last=False, plus_plus=False):
        """The finished map of a module's `run`-th run (from 1), of Grad-CAM or Grad-CAM++: (B, 1, ...) in [0, 1]."""
        activation = self.outputs[module][run - 1]
        gradient = self.gradients[id(activation)].double()
        if channels_last:
            activation, gradient = activation.movedim(-1, 1), gradient.movedim(-1, 1)
        axes = tuple(range(2, activation.dim()))
        weights = gradient.mean(dim=axes, keepdim=True)
        if plus_plus:
            # Equation 19 of the paper, over the square of the gradient; alpha is 0 where the gradient is.
            sums = activation.detach().double().sum(axes, keepdim=True)
            weights = (F.relu(gradient) / (2 + gradient * sums)).sum(axes, keepdim=True)
        cam = F.relu((weights * activation.detach().double()).sum(dim=1, keepdim=True))
        mode = "bilinear" if len(axes) == 2 else "trilinear"
        cam = F.interpolate(cam, size=self.size, mode=mode, align_corners=False)
        low = cam.amin(dim=(1,) + axes, keepdim=True)
        span = cam.amax(dim=(1,) + axes, keepdim=True) - low
        return torch.where(span > 0, (cam - low) / span.clamp_min(1e-300), torch.zeros_like(cam))


def in_double(model):
    """The same network in double precision, for the expected maps themselves."""
    return copy.deepcopy(model).double()


def script_events(scripted):
    """The calls on submodules in a TorchScript module, as (dotted name, run from 1) in the order in
    which they complete; runs are counted per name."""
    names = []
    _collect((scripted._c, ""), "forward", [], names)
    seen = {}
    events = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        events.append((name, seen[name]))
    return events


def _collect(owner, method, arguments, names):
    """`owner` and, among the arguments, modules are pairs (module, name): tracing hands a module that
    several others share to them as an argument."""
    graph = owner[0]._get_method(method).graph
    modules = dict(zip((value.debugName() for value in graph.inputs()), [owner, *arguments]))
    for node in graph.findAllNodes("prim::CallMethod", recurse=True):
        callee, *rest = [_module(value, modules) for value in node.inputs()]
        _collect(callee, node.s("name"), rest, names)
        # Tracing leaves an nn.Identity a call that returns nothing: no layer.
        if callee[0] is not owner[0] and isinstance(node.output().type(), torch._C.TensorType):
            names.append(callee[1])


def _module(value, modules):
    """The (module, name) that a graph value stands for, or None where it is no module."""
    node = value.node()
    if node.kind() != "prim::GetAttr":
        return modules.get(value.debugName())
    owner = _module(node.inputsAt(0), modules)
    if owner is None or not isinstance(value.type(), torch._C.ClassType):
        return None
    part = node.s("name")
    return owner[0].getattr(part), f"{owner[1]}.{part}".lstrip(".")
