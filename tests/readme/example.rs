use medcam::tch::Kind; // the tch that medcam was built with; your crate needs none of its own
use medcam::volumes::{self, Card};
use medcam::{Call, Device, Options}; // not medcam::tch::Device

fn main() -> medcam::Result<()> {
    let device = Device::best();
    let model = medcam::load("bbox_model.pt", device)?;
    let mut model = medcam::inject(model, Options::default().save_maps("attention_maps"))?;

    // Any tensor (B, C, [D,] H, W) will do; this one is an image, prepared as the card says.
    let image = Card::read("bbox_model.toml")?.prepare(&volumes::read("T1.nii.gz")?, Some(3))?;
    let batch = medcam::to_tensor(&image.tensor, device, Kind::Float)?;
    // With its image the map is a NIfTI file on its grid: attention_maps/up0.conv1/T1.nii.gz.
    let call = Call::default().image(&image).name("T1");
    let output = model.forward_with(&batch, &call)?; // the model's own output, bit for bit
    println!("output {:?}", output.size());
    for map in model.attention_maps() {
        println!("map of {}: {:?}", map.layer(), map.to_array()?.shape());
    }
    Ok(())
}
