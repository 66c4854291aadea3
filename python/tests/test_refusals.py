"""What does not fit raises by kind, names the argument, and never ends the process."""

import numpy
import pytest

import medcam_rs
from medcam_rs import DtypeError, InputError, MedcamError, UnavailableError, _native

LAYER = numpy.ones((2, 4, 5, 6), dtype="float32")


def refused(kind, words, activation=LAYER, gradient=LAYER, **options):
    with pytest.raises(kind, match=words) as caught:
        medcam_rs.cam(activation, gradient, **options)
    assert isinstance(caught.value, MedcamError)


def test_kinds_are_pythons_too():
    assert issubclass(InputError, ValueError) and issubclass(DtypeError, TypeError)
    assert issubclass(UnavailableError, RuntimeError)
    assert issubclass(medcam_rs.DeviceError, RuntimeError)


def test_shapes_and_strides():
    refused(InputError, "gradient: its shape", gradient=LAYER[:, :3].copy())
    refused(InputError, "activation: it lies in memory neither", activation=LAYER[:, ::2])
    refused(InputError, "gradient: it lies in memory neither", gradient=LAYER[..., ::-1])
    refused(InputError, "activation: 3 axes", activation=LAYER[0])
    refused(InputError, "activation: 6 axes", activation=LAYER[None, None])
    refused(InputError, "holds no values", activation=LAYER[:0], gradient=LAYER[:0])
    repeated = numpy.broadcast_to(numpy.float32(1), LAYER.shape)
    refused(InputError, "gradient: it lies in memory neither", gradient=repeated)
    odd = numpy.frombuffer(bytearray(961), dtype="uint8", offset=1).view("float32")
    refused(InputError, "not aligned", activation=odd.reshape(LAYER.shape))


def test_types():
    refused(DtypeError, "activation: float64 values", activation=LAYER.astype("float64"))
    refused(DtypeError, "gradient: int32 values", gradient=LAYER.astype("int32"))
    refused(DtypeError, "activation: a list", activation=LAYER.tolist())
    refused(DtypeError, "activation: a NoneType", activation=None)
    refused(InputError, "gradient: values of F16", gradient=LAYER.astype("float16"))
    refused(InputError, "masked array", activation=numpy.ma.masked_array(LAYER, LAYER > 2))
    big = LAYER.astype(LAYER.dtype.newbyteorder())
    refused(DtypeError, "activation: [<>]f4 values", activation=big)
    refused(DtypeError, "out_dtype: float64", out_dtype="float64")
    refused(DtypeError, "out_dtype", out_dtype="sheep")


def test_options():
    refused(InputError, 'method: "cam"', method="cam")
    known = '"paper", "paper[+]1e-6", "m3dcam" and "m3dcam[+]1e-7"'
    refused(
        InputError, f'denominator: "x"; there are {known}', method="gradcam++", denominator="x"
    )
    for size in [(3,), (3, 4, 5), (0, 4), (-1, 4), (1.5, 2), "ab", 7, (1 << 31, 1), (float("nan"), 1),
                 (float("inf"), 4)]:  # fmt: skip
        refused(InputError, "size", size=size)
    for name in ("method", "denominator"):
        refused(DtypeError, f"{name}: None; it takes a name", **{name: None})
    for metrics in (None, 3, (3,)):
        with pytest.raises(DtypeError, match="metrics"):
            medcam_rs.score(LAYER[:, 0], LAYER[:, 0], metrics)
    refused(InputError, "u8", normalize=False, out_dtype="uint8")
    refused(InputError, "no memory for", size=(1 << 30, 1 << 30))
    with pytest.raises(InputError, match="interpolation"):
        medcam_rs.resample(LAYER[:, 0].copy(), (3, 4), interpolation="cubic")
    with pytest.raises(InputError, match="metric"):
        medcam_rs.score(LAYER[:, 0], LAYER[:, 0], ("dice",))
    with pytest.raises(InputError, match="2 maps|masks for"):
        medcam_rs.score(LAYER[:, 0], LAYER[:1, 0])


def test_values_that_are_not_finite():
    for value in (numpy.nan, numpy.inf, -numpy.inf):
        gradient = LAYER.copy()
        gradient[1, 2, 3, 4] = value
        refused(InputError, "sample 1 are not finite in the gradient", gradient=gradient)
        with pytest.raises(InputError, match="sample 1 are not finite"):
            medcam_rs.normalize(gradient[:, 2].copy())


def test_tensors_from_elsewhere():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    layer = torch.ones(2, 4, 5, 6)
    refused(InputError, "activation: a tensor on meta", activation=layer.to("meta"), gradient=layer)
    refused(InputError, "sparse", activation=layer.to_sparse(), gradient=layer)
    refused(InputError, "activation is a tensor on cpu, gradient is a NumPy array", activation=layer)
    refused(DtypeError, "activation: float64", activation=layer.double(), gradient=layer)
    refused(InputError, "gradient: it lies", activation=layer, gradient=layer.expand(2, 4, 5, 6)[:, :, :1].expand(2, 4, 5, 6))


def test_capsules_that_are_used_up():
    array = numpy.ones((1, 2, 3, 4), dtype="float32")

    class Once:
        def __init__(self):
            self.capsule = array.__dlpack__()

        def __dlpack__(self, **_):
            return self.capsule

        def __dlpack_device__(self):
            return (1, 0)

    once = Once()
    assert medcam_rs.channel_weights(once).tolist() == [[1, 1]]
    refused(InputError, "activation: NumPy cannot take it", activation=once, gradient=array)

    class Liar(Once):
        def __dlpack__(self, **_):
            return 7

    refused(InputError, "activation: NumPy cannot take it", activation=Liar(), gradient=array)
    call = lambda x: _native.channel_weights(x, numpy.empty((1, 2), dtype="float32"), 0)
    capsule = array.__dlpack__()
    call(capsule)
    with pytest.raises(InputError, match="consumed already"):
        call(capsule)
    with pytest.raises(DtypeError, match="neither an array nor a tensor"):
        call(object())


def test_tensors_without_memory():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    layer = torch.ones(2, 4, 5, 6)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = mode.from_tensor(layer)
        with pytest.warns(UserWarning, match="data pointer"):
            refused(InputError, "null|does not export", activation=fake, gradient=fake)
    with pytest.raises(InputError, match="does not export"):
        torch.func.vmap(medcam_rs.channel_weights)(layer.expand(3, 2, 4, 5, 6))


def test_interfaces_that_lie():
    class Lying:
        def __init__(self, **changes):
            self.__array_interface__ = {**LAYER.__array_interface__, **changes}

    def call(**changes):
        with pytest.raises((MedcamError, TypeError, ValueError, OverflowError)):
            _native.channel_weights(Lying(**changes), numpy.empty((2, 4), dtype="float32"), 0)

    call(data=(0, False))
    call(data=None)
    call(data=(1 << 70, False))
    call(shape=(2, -4, 5, 6))
    call(shape=(1 << 20, 1 << 20, 1 << 20, 4), strides=(0, 0, 0, 4))
    call(shape="abcd")
    call(shape=(2, 4, 5))
    call(strides=(1, 2, 3, 4))
    call(strides=(4, 4))
    call(strides=(1 << 62, 1 << 62, 1 << 62, 4))
    call(typestr=">f4")
    call(typestr="<c8")
    call(data=(LAYER.ctypes.data + 2, False))


def test_cuda_that_is_not_here():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    if torch.cuda.is_available():
        assert medcam_rs.cuda_devices()
        return
    with pytest.raises(UnavailableError, match="driver|device"):
        medcam_rs.cuda_devices()
