//! Which of several NVRTCs compiles for a device and its driver.

use super::Unavailable;

/// A version of CUDA, or the compute capability of a device: major and minor number.
pub(super) type Version = (i32, i32);

/// Compute capabilities of Tegra systems (Jetson, DRIVE): NVIDIA promises no binary compatibility between them and
/// other devices of the same major number.
const TEGRA: [Version; 7] = [(3, 2), (5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)];

const NOWHERE: &str = "libnvrtc.so is neither beside libtorch nor where the system's loader looks";

/// What a file of NVRTC says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The path, or the name for the system's loader.
    pub name: String,
    /// The version of CUDA that it belongs to.
    pub version: Version,
    /// The compute capabilities that it compiles for.
    pub archs: Vec<Version>,
}

/// The device that machine code is wanted for, and the driver that must load it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The compute capability of the device.
    pub arch: Version,
    /// The version of CUDA that the driver is for; `None` where no driver is to load the machine code.
    pub driver: Option<Version>,
}

/// As NVRTC writes a compute capability: `"sm_90"`.
pub(super) fn arch_name(arch: Version) -> String {
    format!("sm_{}", 10 * arch.0 + arch.1)
}

/// Why a candidate does not fit.
enum Unfit {
    /// The driver is of an older major version of CUDA.
    NewerThanDriver(String),
    /// It does not compile for the device.
    UnknownArch(String),
}

/// The compute capability to compile for, so that the driver loads the machine code on the device.
///
/// Machine code of one major version of CUDA is for all drivers of that version and of later ones. Machine code for
/// one compute capability runs on devices of the same major and the same or a higher minor number.
fn arch_for(candidate: &Candidate, wanted: Wanted) -> Result<Version, Unfit> {
    let Candidate { name, version, archs } = candidate;
    let (major, minor) = wanted.arch;
    if let Some(driver) = wanted.driver.filter(|driver| version.0 > driver.0) {
        return Err(Unfit::NewerThanDriver(format!(
            "{name} is of CUDA {}.{}, and the driver of CUDA {}.{}",
            version.0, version.1, driver.0, driver.1
        )));
    }
    if archs.contains(&wanted.arch) {
        return Ok(wanted.arch);
    }
    let runs_on_it = |arch: &&Version| arch.0 == major && arch.1 < minor && !TEGRA.contains(arch);
    let closest = archs.iter().filter(runs_on_it).max();
    closest.copied().filter(|_| !TEGRA.contains(&wanted.arch)).ok_or_else(|| {
        Unfit::UnknownArch(format!(
            "{name} of CUDA {}.{} does not compile for {}",
            version.0,
            version.1,
            arch_name(wanted.arch)
        ))
    })
}

/// The first candidate that compiles for the very device, else the one whose compute capability comes closest; and the
/// compute capability to compile for. An `Err` among the candidates is a file that cannot be loaded, and why.
///
/// Looks at no more candidates than it must, since looking at one loads it.
///
/// # Errors
///
/// If none fits, with a reason for each.
pub(super) fn choose<C: AsRef<Candidate>>(
    candidates: impl Iterator<Item = Result<C, String>>,
    wanted: Wanted,
) -> Result<(C, Version), Unavailable> {
    let mut closest: Option<(C, Version)> = None;
    let (mut missing, mut newer, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in candidates {
        let candidate = match candidate {
            Ok(candidate) => candidate,
            Err(why) => {
                missing.push(why);
                continue;
            }
        };
        match arch_for(candidate.as_ref(), wanted) {
            Ok(arch) if arch == wanted.arch => return Ok((candidate, arch)),
            Ok(arch) if closest.as_ref().is_none_or(|(_, best)| arch > *best) => {
                closest = Some((candidate, arch));
            }
            Ok(_) => {}
            Err(Unfit::NewerThanDriver(why)) => newer.push(why),
            Err(Unfit::UnknownArch(why)) => unknown.push(why),
        }
    }
    let why = || [&newer[..], &unknown, &missing].concat().join("; ");
    let major = wanted.driver.map_or(0, |driver| driver.0);
    match closest {
        Some(found) => Ok(found),
        None if !unknown.is_empty() => Err(Unavailable::UnknownArchitecture(format!(
            "{}; install NVRTC of a version of CUDA that compiles for the device, not newer than the driver, and \
             name its folder in MEDCAM_NVRTC",
            why()
        ))),
        None if !newer.is_empty() => Err(Unavailable::OldDriver(format!(
            "{}; update the driver, or install NVRTC of CUDA {major} (pip install nvidia-cuda-nvrtc-cu{major}) and \
             name its folder in MEDCAM_NVRTC",
            why()
        ))),
        None => {
            let why = if missing.is_empty() { NOWHERE.to_owned() } else { why() };
            let advice =
                "install it (pip install nvidia-cuda-nvrtc) and name its folder in MEDCAM_NVRTC";
            Err(Unavailable::NoNvrtc(format!("{why}; {advice}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AsRef<Self> for Candidate {
        fn as_ref(&self) -> &Self {
            self
        }
    }

    const CUDA_12: [Version; 7] = [(7, 0), (7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0)];
    const CUDA_13: [Version; 6] = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)];

    fn candidate(name: &str, version: Version, archs: &[Version]) -> Result<Candidate, String> {
        Ok(Candidate { name: name.to_owned(), version, archs: archs.to_vec() })
    }

    fn both() -> [Result<Candidate, String>; 2] {
        [candidate("13", (13, 0), &CUDA_13), candidate("12", (12, 4), &CUDA_12)]
    }

    /// The name of the chosen candidate and the architecture, or the error.
    fn chosen(
        candidates: impl IntoIterator<Item = Result<Candidate, String>>,
        arch: Version,
        driver: Option<Version>,
    ) -> Result<(String, Version), Unavailable> {
        let found = choose(candidates.into_iter(), Wanted { arch, driver })?;
        Ok((found.0.name, found.1))
    }

    #[test]
    fn the_driver_bounds_the_major_version() {
        let found = |driver| chosen(both(), (8, 6), driver).unwrap().0;
        assert_eq!(found(Some((13, 0))), "13");
        assert_eq!(found(Some((12, 9))), "12");
        // The same major version, though the driver is older than NVRTC; and a driver that is newer than both.
        assert_eq!(found(Some((12, 0))), "12");
        assert_eq!(found(Some((14, 1))), "13");
        assert_eq!(found(None), "13");
        let error = chosen(both(), (8, 6), Some((11, 8))).unwrap_err();
        let Unavailable::OldDriver(why) = error else { panic!("{error}") };
        assert!(
            why.starts_with("13 is of CUDA 13.0, and the driver of CUDA 11.8; 12 is of"),
            "{why}"
        );
        assert!(why.contains("update the driver, or install NVRTC of CUDA 11 (pip"), "{why}");
    }

    #[test]
    fn a_candidate_that_knows_the_device_is_better_than_an_earlier_one() {
        let newest = Some((13, 0));
        // CUDA 13 compiles for no Volta any more.
        assert_eq!(chosen(both(), (7, 0), newest).unwrap(), ("12".to_owned(), (7, 0)));
        assert_eq!(chosen(both(), (12, 0), newest).unwrap(), ("13".to_owned(), (12, 0)));
        let swapped = || both().into_iter().rev();
        assert_eq!(chosen(swapped(), (12, 0), newest).unwrap(), ("13".to_owned(), (12, 0)));
        let error = chosen(both(), (12, 0), Some((12, 9))).unwrap_err();
        let Unavailable::UnknownArchitecture(why) = error else { panic!("{error}") };
        let expected = "13 is of CUDA 13.0, and the driver of CUDA 12.9; 12 of CUDA 12.4 does not compile for sm_120";
        assert!(why.starts_with(expected), "{why}");
    }

    #[test]
    fn an_older_minor_number_stands_in() {
        let driver = Some((13, 0));
        let old = || candidate("old", (11, 4), &[(7, 5), (8, 0), (8, 6), (8, 7)]);
        // Not 8.7: that is a Tegra.
        assert_eq!(chosen([old()], (8, 9), driver).unwrap().1, (8, 6));
        assert_eq!(
            chosen([old(), candidate("a", (11, 0), &[(8, 0)])], (8, 9), driver).unwrap().0,
            "old"
        );
        assert_eq!(
            chosen([candidate("a", (11, 0), &[(8, 0)]), old()], (8, 9), driver).unwrap().0,
            "old"
        );
        assert_eq!(chosen(both(), (12, 1), driver).unwrap().1, (12, 0));
        // Neither a lower minor number, nor another major number, nor for a Tegra.
        for arch in [(7, 2), (9, 0), (11, 0)] {
            let error = chosen([old()], arch, driver).unwrap_err();
            assert!(matches!(error, Unavailable::UnknownArchitecture(_)), "{error}");
        }
        let error = chosen([candidate("13", (13, 0), &CUDA_13)], (8, 7), driver).unwrap_err();
        assert!(matches!(error, Unavailable::UnknownArchitecture(_)), "{error}");
    }

    #[test]
    fn what_does_not_load_is_passed_over_and_told_of() {
        let broken = || Err("too short".to_owned());
        let driver = Some((13, 0));
        assert_eq!(chosen([broken(), both()[0].clone()], (9, 0), driver).unwrap().0, "13");
        let error = chosen([], (9, 0), driver).unwrap_err();
        assert!(error.to_string().contains("neither beside libtorch nor"), "{error}");
        let error = chosen([broken()], (9, 0), driver).unwrap_err();
        let Unavailable::NoNvrtc(why) = error else { panic!("{error}") };
        assert!(why.starts_with("too short; install it (pip install nvidia-cuda-nvrtc)"), "{why}");
        // The rest is not looked at once the device is known.
        let unseen = std::iter::from_fn(|| panic!("loaded for nothing"));
        chosen(both().into_iter().chain(unseen), (9, 0), driver).unwrap();
    }
}
