"""2D segmentation: a small U-Net, trained here to tell gray from white matter in axial slices."""

import nibabel
import numpy
import torch
from networks import TISSUE_CLASSES, TissueNet
from torch.nn import functional

SEED = 20200701
EPOCHS = 16
BATCH = 8
LEARNING_RATE = 2e-3
# Slices (z = index - 72 mm) that training never sees, nor MARGIN slices on either side, which are
# nearly the same. The picture shows the one in the middle.
HELD_OUT = range(82, 103)
MARGIN = 4
SHOWN = 92
# Voxels x and y: the brain, in extents that halve three times.
FIELD = (slice(4, 196), slice(4, 228))
# Below this sum of gray and white matter's probabilities a voxel is something else.
LEAST_BRAIN = 0.5


def _template(data, name):
    path = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    return nibabel.load(data / "nilearn-0.14.1" / path)


def _slices(data):
    """Axial slices: images (N, 1, W, H) and labels (N, W, H)."""
    t1, gray, white = (
        torch.tensor(_template(data, name).get_fdata(dtype=numpy.float32)[FIELD]).permute(2, 0, 1)
        for name in ("t1", "gm", "wm")
    )
    brain = (gray + white) / 255 >= LEAST_BRAIN
    labels = torch.where(brain, 1 + (white > gray).long(), 0)
    return t1.unsqueeze(1), labels


def _z_score(images):
    """Each slice by itself, as the card does."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) / images.std((1, 2, 3), keepdim=True, correction=0)


def _varied(images, labels):
    """The batch mirrored at random, a little darker or brighter, steeper or flatter, noisier."""
    if torch.rand(()) < 0.5:
        images, labels = images.flip(2), labels.flip(1)
    images = images * (0.8 + 0.4 * torch.rand(len(images), 1, 1, 1))
    images = images + 0.2 * torch.randn(len(images), 1, 1, 1)
    return images + 0.1 * torch.rand(()) * torch.randn_like(images), labels


def _dice(predicted, labels):
    """2 |A and B| / (|A| + |B|) of each class over all slices."""
    scores = {}
    for index, name in enumerate(TISSUE_CLASSES):
        ours, theirs = predicted == index, labels == index
        scores[name] = round(2 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum()), 4)
    return scores


def _train(images, labels):
    """A network that has seen the slices EPOCHS times."""
    torch.manual_seed(SEED)
    network = TissueNet()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            batch, truth = _varied(images[chosen], labels[chosen])
            loss = functional.cross_entropy(network(batch), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def make(data, folder):
    """Trains, and writes the model and its input; returns the Dice on slices that it has not seen."""
    images, labels = _slices(data)
    inside = (labels > 0).flatten(1).any(1)
    near = range(HELD_OUT.start - MARGIN, HELD_OUT.stop + MARGIN)
    chosen = [index for index in range(len(images)) if inside[index] and index not in near]
    network = _train(_z_score(images[chosen]), labels[chosen])

    with torch.no_grad():
        scores = {
            name: _dice(network(_z_score(images[indices])).argmax(1), labels[indices])
            for name, indices in (("trained on", chosen[::6]), ("held out", list(HELD_OUT)))
        }
        torch.jit.trace(network, _z_score(images[[SHOWN]])).save(str(folder / "tissue_unet.pt"))

    whole = _template(data, "t1")
    one = whole.slicer[FIELD[0], FIELD[1], SHOWN : SHOWN + 1]
    nibabel.save(one, folder / "brain_slice.nii.gz")
    return {"slices_trained_on": len(chosen), "slices_held_out": len(HELD_OUT), "dice": scores}
