//! `.npy` headers as NumPy reads them.

use std::path::Path;

use medcam::volumes::read_npy;
use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

fn write(path: &Path, version: u8, text: &str, data: &[u8]) {
    let count = u32::try_from(text.len()).unwrap().to_le_bytes();
    let count = if version == 1 { &count[..2] } else { &count[..] };
    let bytes = [b"\x93NUMPY", &[version, 0][..], count, text.as_bytes(), data].concat();
    std::fs::write(path, bytes).unwrap();
}

fn read(version: u8, text: &str, data: &[u8]) -> Result<ArrayD<f32>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    write(&path, version, text, data);
    read_npy(&path).map_err(|error| error.to_string())
}

fn ramp(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| (n as f32).to_le_bytes()).collect()
}

#[test]
fn headers_of_python_2_are_read() {
    let expected = ArrayD::from_shape_fn(IxDyn(&[1, 1, 2, 3]), |i| (3 * i[2] + i[3]) as f32);
    for (version, text) in [
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 1L, 2L, 3L), }      \n"),
        (2, "{u'descr': u'<f4', u'fortran_order': False, u'shape': (1L, 1, 2L, 3)}\n"),
        (1, "{'shape': (1, 1 , 2 L, 3L,), \"descr\": \"<f4\",\n 'fortran_order': False}\n"),
        (3, "  {'fortran_order':False,'shape':(1,1,2,3),'descr':b'<f4'}"),
        (1, "{'descr':\t'f', 'fortran_order': False,\r\n'shape': (1L,1L,2L,3L)}"),
    ] {
        assert_eq!(read(version, text, &ramp(6)).unwrap(), expected, "{text}");
    }
    // The type name `L` is not the suffix of a Python 2 number.
    let text = "{'descr': 'L', 'fortran_order': False, 'shape': (1L,), }\n";
    assert_eq!(read(1, text, &7_u64.to_le_bytes()).unwrap().into_raw_vec_and_offset().0, [7.0]);
}

#[test]
fn every_name_of_a_type_is_read() {
    let names = [
        ("? bool bool_ b1 |b1 <b1", vec![1]),
        ("? |b1", vec![255]),
        ("b byte int8 i1 |i1 B ubyte uint8 u1 <u1", vec![1]),
        ("h short int16 i2 <i2 =i2 |i2 H ushort uint16 u2 <H", vec![1, 0]),
        ("i intc int32 i4 =i4 I uintc uint32 u4", vec![1, 0, 0, 0]),
        ("l q p n int int_ int64 i8 <i8 long longlong intp", vec![1, 0, 0, 0, 0, 0, 0, 0]),
        ("L Q P N uint uint64 u8 ulong ulonglong uintp", vec![1, 0, 0, 0, 0, 0, 0, 0]),
        (">i8 >q >u8", vec![0, 0, 0, 0, 0, 0, 0, 1]),
        ("e half float16 f2 <e", vec![0, 0x3c]),
        (">e >f2", vec![0x3c, 0]),
        ("f single float32 f4 =f4 |f4 <f", vec![0, 0, 0x80, 0x3f]),
        (">f >f4", vec![0x3f, 0x80, 0, 0]),
        ("d double float float64 f8 <d", vec![0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
    ];
    let text =
        |name: &str| format!("{{'descr': '{name}', 'fortran_order': False, 'shape': (1,), }}\n");
    for (names, bytes) in names {
        for name in names.split_whitespace() {
            let array = read(1, &text(name), &bytes).unwrap();
            assert_eq!(array.into_raw_vec_and_offset().0, [1.0], "{name}");
        }
    }
    for name in ["<V2", "V2", "<f16", "c8", "F", "<float32", "f3", "", "S1", "O", " f4", "M8[ns]"] {
        let message = read(1, &text(name), &[0; 2]).unwrap_err();
        assert!(message.contains("is not read; save it as float32"), "{name}: {message}");
    }
    assert!(read(1, &text("V2"), &[0; 2]).unwrap_err().contains("bfloat16"));
}

proptest! {
    #[test]
    fn however_long_the_shape_and_wide_the_space(
        shape in prop::collection::vec(1_usize..4, 0..5),
        gaps in prop::collection::vec(prop::sample::select(vec!["", " ", "\n", "\t ", "  "]), 5),
        long in any::<bool>(),
    ) {
        let suffix = if long { "L" } else { "" };
        let extents: String = shape.iter().map(|n| format!("{n}{suffix},{}", gaps[0])).collect();
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| gaps[n]);
        let text = format!(
            "{{{a}'shape'{b}:({extents}),{c}'descr':{d}'<f4','fortran_order'{b}:{a}False{c}}}{d}\n"
        );
        let count = shape.iter().product();
        let array = read(1, &text, &ramp(count)).unwrap();
        prop_assert_eq!(array.shape(), &shape[..]);
        prop_assert!(array.iter().enumerate().all(|(n, &value)| value == n as f32));
    }
}
