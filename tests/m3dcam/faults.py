"""What is wrong with M3d-CAM 0.1.22, and which case shows which fault."""

ONE_SAMPLE = "label best, and none in classification, takes a batch of one sample only"
CLASSES = "Grad-CAM++ multiplies the C channels of the gradient by exp of the output's K: K must be 1 or C"
VOLUMES = "Grad-CAM++ resizes the (B, K) scores of a batch as if they were an image, which fails in 3D"
IMAGES = "Grad-CAM++ resizes the (B, K) scores of a batch as if they were an image, and takes exp of it"
NO_VOXELS = "full takes layers without voxels too, such as a linear one"
RUNS = "of a layer that runs twice it takes the last activation with the first gradient"
UNGUIDED = "F.relu is not guided: only modules are"
NOTHING = "without any ReLU there is nothing to guide, and the map is the plain gradient"
CONSTANT = "a sample whose map is constant is divided by 0 (NaN) if another sample's map is not"
OVERFLOW = "exp of a score above 88 is infinite, and the map NaN"
RANGE = "ggcam normalises all samples of a batch with the range of the first"
FIRST = "the first call of ggcam adds the plain gradient of the call before to the guided one"
IN_PLACE = "an in-place ReLU writes over the activation that was kept"

# Networks that run a module twice, and that module.
SHARED = {"shared2d": "relu", "unet2d": "down", "resnet18": "relu"}


def why(case, error, not_finite, nothing_guided):
    """The fault that a case shows which fails with `error`, or gives wrong maps."""
    network, batch = case.network, case.samples > 1
    classifies = network.task == "classification"
    full = case.layer == "full"
    if error:
        rules = (
            (ONE_SAMPLE, batch and "Best label mode" in error),
            (VOLUMES, case.backend == "gcampp" and classifies and batch and network.dim == 3),
            (NO_VOXELS, full and classifies),
            (CLASSES, case.backend == "gcampp" and not classifies and "must match" in error),
            (RUNS, full and network.name in SHARED),
        )
    else:
        rules = (
            (NOTHING, nothing_guided),
            (CONSTANT, batch and not_finite),
            (OVERFLOW, case.backend == "gcampp" and network.name.startswith("confident") and not_finite),
            (UNGUIDED, case.backend in ("gbp", "ggcam") and network.act == "functional"),
            (FIRST, case.backend == "ggcam" and case.first),
            (RANGE, case.backend == "ggcam" and batch),
            (IMAGES, case.backend == "gcampp" and classifies and batch),
            (IN_PLACE, network.act == "inplace"),
            (RUNS, SHARED.get(network.name) == case.layer or full and network.name in SHARED),
        )
    found = next((fault for fault, shown in rules if shown), None)
    assert found, f"{case.name()}: no known fault explains it ({error=}, {not_finite=})"
    return found
