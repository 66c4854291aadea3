"""Pictures, whole and not, and what Pillow makes of them.

    pillow_images.py cut FOLDER       files; prints each one's name and whether Pillow reads it
    pillow_images.py labels FOLDER    label images NAME, and NAME.npy as numpy.asarray has them
"""

import io
import pathlib
import sys

import numpy as np
from PIL import Image

folder = pathlib.Path(sys.argv[2])
rng = np.random.default_rng(1)


def verdict(name, data):
    (folder / name).write_bytes(data)
    try:
        Image.open(folder / name).load()
        print(name, "read")
    except Exception:
        print(name, "refused")


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def cut():
    for height, width in ((1, 1), (17, 30), (48, 64)):
        rgb = Image.fromarray(rng.integers(0, 255, (height, width, 3)).astype("u1"))
        cmyk = Image.frombytes("CMYK", (width, height), rng.bytes(4 * height * width))
        flat = Image.new("RGB", (width, height), (128, 128, 128))
        kinds = {
            "baseline": encoded(rgb),
            "full": encoded(rgb, quality=95, subsampling=0),
            "gray": encoded(rgb.convert("L")),
            "cmyk": encoded(cmyk),
            "restart": encoded(rgb, restart_marker_blocks=1),
            "flat": encoded(flat),
            "progressive": encoded(rgb, progressive=True),
            "progressive-gray": encoded(rgb.convert("L"), progressive=True),
            "progressive-flat": encoded(flat, progressive=True),
        }
        for kind, data in kinds.items():
            name = f"{kind}-{height}"
            # Where one scan lacks only its end marker, it depends on chance whether Pillow reads it.
            last = len(data) if "progressive" in kind else len(data) - 2
            for length in [*range(0, last, len(data) // 40 + 1), *range(last - 12, last)]:
                verdict(f"{name}-{length}.jpg", data[:length])
            verdict(f"{name}.jpg", data)
            verdict(f"{name}-tail.jpg", data + b"tail")
            verdict(f"{name}-zeros.jpg", data[:-2] + bytes(16))
            verdict(f"{name}-fill.jpg", data[:2] + b"\xff\xff\xff\xe5\x00\x04ab" + data[2:])


def labels():
    values = rng.integers(0, 4, (9, 14)).astype("u1")
    values[0, :4] = 0, 1, 2, 3
    palette = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    images = {
        "gray-8.png": Image.fromarray(values),
        "gray-16.png": Image.fromarray(values.astype("u2")),
        "gray-16-large.png": Image.fromarray(values.astype("u2") * 1000),
        "one.png": Image.fromarray(values > 1),
    }
    for bits in (2, 4, 8):
        images[f"palette-{bits}.png"] = image = Image.fromarray(values, "P")
        image.putpalette(palette)
    images["void.png"] = image = Image.fromarray(np.where(values == 3, 255, values), "P")
    image.putpalette(palette + [200] * (3 * 252))
    images["alpha.png"] = image = Image.fromarray(values, "P")
    image.putpalette(palette)
    for name, image in images.items():
        options = {"bits": int(name[8])} if name.startswith("palette") else {}
        if name == "alpha.png":
            options["transparency"] = 0
        image.save(folder / name, **options)
        back = Image.open(folder / name)
        assert back.mode in ("L", "I;16", "1", "P"), (name, back.mode)
        np.save(folder / f"{name}.npy", np.asarray(back))
        print(name)


{"cut": cut, "labels": labels}[sys.argv[1]]()
