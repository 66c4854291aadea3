//! What a run is: the first line of its journal.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cli::args::Options;
use crate::cohort::{Case, Part};
use crate::error::{Error, Result};
use crate::methods::Target;
use crate::record::{self, Plan};
use crate::torch::Device;
use crate::version::VERSION;

/// The plan of a run over all these cases, of which this process may run a part.
pub fn of(
    options: &Options,
    part: Option<Part>,
    cases: &[Case],
    devices: &[Device],
) -> Result<Plan> {
    let json = |error: serde_json::Error| Error::usage(format!("json: {error}")).because(error);
    let Value::Object(mut settings) = serde_json::to_value(options).map_err(json)? else {
        return Err(Error::usage("json: the options have no names"));
    };
    // The folder is where the journal is; of the model, its content counts and not its path.
    settings.remove("output");
    settings.remove("model");
    let hash = |file: Option<&PathBuf>| -> Result<Value> {
        Ok(file.map(record::sha256).transpose()?.into())
    };
    settings.insert("card_sha256".into(), hash(options.model.card_file().as_ref())?);
    settings.insert("target_mask_sha256".into(), hash(options.target_mask.as_ref())?);
    settings.insert("explain_output".into(), options.model.explain_output.clone().into());
    settings.insert("precision".into(), options.model.precision.clone().into());
    settings.insert("num_parts".into(), part.map(Part::count).into());
    // Which GPU of several ran a case does not show in its maps.
    let device = if devices.iter().all(|device| *device == Device::Cpu) { "cpu" } else { "cuda" };
    Ok(Plan {
        medcam: VERSION.to_owned(),
        libtorch: env!("MEDCAM_LIBTORCH").to_owned(),
        model_sha256: record::sha256(&options.model.model)?,
        device: device.to_owned(),
        threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
        cases: cases.len(),
        cases_sha256: hash_of(cases),
        settings,
    })
}

/// Where a file is, however the way to its folder was written.
fn place(file: &Path) -> PathBuf {
    let folder = file.parent().map(|folder| match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    });
    match (folder.and_then(|folder| folder.canonicalize().ok()), file.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => file.to_owned(),
    }
}

/// The hash of ids, images, masks and labels.
fn hash_of(cases: &[Case]) -> String {
    let mut hasher = Sha256::new();
    for case in cases {
        let labels: Vec<_> = case.targets.iter().flatten().map(Target::label).collect();
        let image = place(&case.image);
        let mask = case.mask.as_deref().map(place).unwrap_or_default();
        let fields = [
            case.id.as_str(),
            &image.to_string_lossy(),
            &mask.to_string_lossy(),
            &labels.join(","),
        ];
        for field in fields {
            hasher.update(field.len().to_le_bytes());
            hasher.update(field);
        }
    }
    record::to_hexadecimal(&hasher.finalize())
}
