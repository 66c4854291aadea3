//! `--network FILE`: a TorchScript file, bare and with its map, as a program in Rust runs it. Prints a
//! line of JSON for each way, and goes on when it is given a line, so that somebody can look at what the
//! process holds (or at the end of its input).
//!
//! `--input 1x3x224x224 --precision f32 --device cuda --class 1 --late NAME --seconds S --rounds N`

use std::collections::HashMap;
use std::time::Instant;

use cudarc::driver::result;
use medcam::tch::{self, Kind, Tensor};
use medcam::{Device, LayerChoice, Options, Precision, Target, inject, load};
use serde_json::json;

/// Forwards before the first that counts: layers and convolutions are chosen in them.
const WARM_UP: usize = 3;

struct Asked {
    file: String,
    input: Vec<i64>,
    precision: Precision,
    kind: Kind,
    device: Device,
    class: usize,
    late: String,
    seconds: f64,
    rounds: usize,
}

impl Asked {
    fn of(arguments: &[String]) -> Self {
        let mut arguments = arguments.iter().filter(|argument| *argument != "--bench");
        let mut given = HashMap::new();
        while let Some(name) = arguments.next() {
            given.insert(name.as_str(), arguments.next().unwrap().as_str());
        }
        let precision = given["--precision"];
        Self {
            file: given["--network"].to_owned(),
            input: given["--input"].split('x').map(|extent| extent.parse().unwrap()).collect(),
            precision: precision.parse().unwrap(),
            kind: if precision == "bf16" { Kind::BFloat16 } else { Kind::Float },
            device: if given["--device"] == "cuda" { Device::Cuda(0) } else { Device::Cpu },
            class: given["--class"].parse().unwrap(),
            late: given["--late"].to_owned(),
            seconds: given["--seconds"].parse().unwrap(),
            rounds: given["--rounds"].parse().unwrap(),
        }
    }

    fn synchronize(&self) {
        if let Device::Cuda(_) = self.device {
            tch::Cuda::synchronize(0);
        }
    }

    /// Bytes of the device's memory that are in use, whoever uses them.
    fn used(&self) -> Option<usize> {
        let Device::Cuda(_) = self.device else { return None };
        let (free, total) = result::mem_get_info().ok()?;
        Some(total - free)
    }

    fn forward(&self, way: &str, input: &Tensor) -> Box<dyn FnMut()> {
        let model = load(&self.file, self.device).unwrap().in_precision(self.precision).unwrap();
        let input = input.shallow_clone();
        let layers = match way {
            "bare" => return Box::new(move || drop(model.forward(&input).unwrap())),
            "auto" => LayerChoice::Auto,
            _ => LayerChoice::Names(vec![self.late.clone()]),
        };
        let options = Options::default().layers(layers).target(Target::Class(self.class));
        let mut injected = inject(model, options).unwrap();
        Box::new(move || {
            drop(injected.forward(&input).unwrap());
            assert_eq!(injected.attention_maps().len(), 1);
        })
    }
}

pub fn main(arguments: &[String]) {
    let asked = Asked::of(arguments);
    let device = if asked.device == Device::Cpu { tch::Device::Cpu } else { tch::Device::Cuda(0) };
    asked.device.available().unwrap();
    tch::manual_seed(0);
    let input = Tensor::randn(&asked.input[..], (Kind::Float, device)).to_kind(asked.kind);
    asked.synchronize();
    let before = asked.used();
    // libtorch keeps what was freed, so a later way's memory is at least an earlier one's.
    for way in ["bare", "late", "auto"] {
        let mut forward = asked.forward(way, &input);
        for _ in 0..WARM_UP.min(asked.rounds) {
            forward();
        }
        asked.synchronize();
        let begin = Instant::now();
        let mut seconds = Vec::new();
        while seconds.len() < asked.rounds
            && (seconds.len() < 5 || begin.elapsed().as_secs_f64() < asked.seconds)
        {
            let start = Instant::now();
            forward();
            asked.synchronize();
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let used = asked.used().zip(before).map(|(used, before)| used.saturating_sub(before));
        println!(
            "{}",
            json!({
                "way": way,
                "seconds": seconds[seconds.len() / 2],
                "least": seconds[0],
                "greatest": seconds[seconds.len() - 1],
                "rounds": seconds.len(),
                "used": used,
            })
        );
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}
