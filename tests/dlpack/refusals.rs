//! Tensors that don't fit are refused, by name, and before their memory is looked at.

use medcam::dlpack::ffi::{DLDataTypeCode, DLDeviceType};
use medcam::dlpack::{Place, Tensor, TensorMut, Workspace};
use medcam::ops::Method;
use medcam::{Layout, Shape};

use crate::CPU;
use crate::tensors::*;

/// What `Tensor::of` says of a `(1, 2, 2, 3)` tensor that was changed.
fn refusal(change: impl FnOnce(&mut Described)) -> String {
    let mut values = [0.0_f32; 12];
    let shape = Shape::new(1, 2, [1, 2, 3]).unwrap();
    let data = values.as_mut_ptr().cast();
    let mut described = Described::layer::<f32>(data, CPU, shape, Layout::Contiguous);
    change(&mut described);
    // SAFETY: what fits the values is read, and what doesn't is refused before.
    let error = unsafe { Tensor::of("activation", described.pointer()) }.unwrap_err();
    assert!(error.is_input());
    error.to_string()
}

#[test]
fn fields_that_do_not_fit() {
    // SAFETY: a null pointer is allowed.
    let error = unsafe { Tensor::of("activation", std::ptr::null()) }.unwrap_err();
    assert_eq!(error.to_string(), "activation: a null pointer");
    let said = refusal(|x| x.tensor.data = std::ptr::null_mut());
    assert_eq!(said, "activation: its data is a null pointer, or ends beyond all memory");
    let said = refusal(|x| x.tensor.byte_offset = u64::MAX);
    assert_eq!(said, "activation: its data is a null pointer, or ends beyond all memory");
    let said = refusal(|x| x.tensor.byte_offset = 2);
    assert_eq!(said, "activation: its data is not aligned to 4 bytes");
    let said = refusal(|x| x.tensor.device.device_type = DLDeviceType::ROCM);
    assert!(said.starts_with("activation: device: number 0 of type 10; "), "{said}");
    let said = refusal(|x| x.tensor.dtype.bits = 64);
    assert!(said.starts_with("activation: values of type code 2 with 64 bits"), "{said}");
    let said = refusal(|x| x.tensor.dtype.lanes = 4);
    assert!(said.contains("4 lanes"), "{said}");
    let said = refusal(|x| x.tensor.dtype.code = DLDataTypeCode::FLOAT8_E5M2);
    assert!(said.contains("type code 12"), "{said}");
    let said = refusal(|x| x.shape[1] = 0);
    assert_eq!(said, "activation: shape [1, 0, 2, 3] holds no values");
    let said = refusal(|x| x.shape[1] = -2);
    assert_eq!(said, "activation: shape [1, -2, 2, 3] has a negative extent");
    let said = refusal(|x| x.shape[..2].fill(1 << 40));
    assert!(said.ends_with("has too many elements to count"), "{said}");
    let said = refusal(|x| x.shape = vec![1; 6]);
    assert_eq!(said, "activation: 6 axes; tensors have 1 to 5");
    let said = refusal(|x| x.shape.clear());
    assert_eq!(said, "activation: 0 axes; tensors have 1 to 5");
}

/// What a call of `cam` says on these shapes and strides of activation, gradient and map.
fn call(change: impl FnOnce([&mut Described; 3])) -> String {
    let (mut a, mut g, mut map) = ([1.0_f32; 96], [1.0_f32; 96], [0.0_f32; 96]);
    let shape = Shape::new(2, 4, [1, 3, 4]).unwrap();
    let layer = |data| Described::layer::<f32>(data, CPU, shape, Layout::Contiguous);
    let mut activation = layer(a.as_mut_ptr().cast());
    let mut gradient = layer(g.as_mut_ptr().cast());
    let mut out = Described::maps::<f32>(map.as_mut_ptr().cast(), CPU, 2, [1, 3, 4]);
    change([&mut activation, &mut gradient, &mut out]);
    let mut workspace = Workspace::new(Place::Cpu).unwrap();
    // SAFETY: no description reaches beyond the 96 values of its array, and where two are of one array
    // the call refuses them.
    unsafe {
        let activation = Tensor::of("activation", activation.pointer()).unwrap();
        let gradient = Tensor::of("gradient", gradient.pointer()).unwrap();
        let mut map = TensorMut::of("map", out.pointer()).unwrap();
        let mut work = workspace.on(std::ptr::null_mut()).unwrap();
        match work.cam(Method::GradCam, true, &activation, &gradient, &mut map, true) {
            Ok(_) => String::new(),
            Err(error) => {
                assert!(error.is_input());
                error.to_string()
            }
        }
    }
}

#[test]
fn tensors_that_do_not_fit_each_other() {
    assert_eq!(call(|_| ()), "");
    let said = call(|[a, _, _]| a.strides = Some(vec![0, 12, 4, 1]));
    assert!(said.starts_with("activation: it lies in memory neither as"), "{said}");
    let said = call(|[a, _, _]| a.strides = Some(vec![i64::MAX, i64::MAX, 4, 1]));
    assert!(said.starts_with("activation: it lies in memory neither as"), "{said}");
    let said = call(|[_, g, _]| g.strides = Some(vec![-48, -12, -4, -1]));
    assert!(said.starts_with("gradient: it lies in memory neither as"), "{said}");
    let said = call(|[_, _, map]| map.strides = Some(vec![12, 1, 3]));
    assert!(said.starts_with("map: its values have to follow each other in order"), "{said}");
    let said = call(|[_, g, _]| {
        (g.shape, g.strides) = (vec![2, 3, 4, 4], None);
    });
    assert!(said.contains("gradient: its shape (2, 3, 1, 4, 4) is not that of the activation"));
    let said = call(|[_, g, _]| g.tensor.dtype = <half::f16 as Typed>::TYPE);
    assert!(said.starts_with("gradient: values of F16, and here they are F32"), "{said}");
    let said = call(|[a, g, _]| {
        (a.tensor.dtype, g.tensor.dtype) = (<u8 as Typed>::TYPE, <u8 as Typed>::TYPE);
    });
    assert!(said.starts_with("activation: u8 values; activations are f32, f16 or bf16"), "{said}");
    let said = call(|[_, _, map]| map.tensor.dtype = <half::bf16 as Typed>::TYPE);
    assert!(said.starts_with("map: bf16 values; finished maps are f32, f16 or u8"), "{said}");
    let said = call(|[_, _, map]| map.shape = vec![3, 3, 4]);
    assert!(said.starts_with("map: 3 maps for a batch of 2"), "{said}");
    let said = call(|[_, _, map]| map.shape = vec![2, 2, 3, 4]);
    assert!(said.starts_with("map: a depth, and the activation is 2D"), "{said}");
    let said = call(|[_, _, map]| map.shape = vec![2, 12]);
    assert!(said.starts_with("map: expected maps (B, [D,] H, W)"), "{said}");
    let said = call(|[a, _, map]| map.tensor.data = a.tensor.data);
    assert!(said.starts_with("map: it shares memory with activation"), "{said}");
    let said = call(|[_, g, map]| {
        map.tensor.data = g.tensor.data;
        map.tensor.byte_offset = 4 * 72;
    });
    assert!(said.starts_with("map: it shares memory with gradient"), "{said}");
    let said = call(|[_, _, map]| map.tensor.device.device_type = DLDeviceType::CUDA);
    assert!(said.starts_with("map: on Cuda(0), and the call works on Cpu"), "{said}");
}

#[test]
fn a_device_that_is_not_there() {
    let error = Workspace::new(Place::Cuda(99)).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
