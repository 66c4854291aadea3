//! The affine of a volume: the 4x4 matrix from voxel indices to positions in the scanner's RAS+
//! space. Spacing and orientation are derived from it. Conventions and results are those of
//! nibabel.

use std::fmt;
use std::str::FromStr;

use nifti::NiftiHeader;

/// Row-major; the last row is `0, 0, 0, 1`.
pub(crate) type Affine = [[f64; 4]; 4];

type Matrix3 = [[f64; 3]; 3];

const IDENTITY: Affine = [[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]];

const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['I', 'S']];

/// Smallest absolute determinant of the column-normalised matrix; below it, two axes count as
/// parallel.
const SINGULAR: f64 = 1e-6;

/// Chooses the affine as nibabel does: the sform, else the qform, else the header's spacing about
/// the grid's centre.
///
/// If the sform cannot be inverted, the qform replaces it, as in ITK; the sform is then removed
/// from `header`, with a note. `shape` is the grid's extent; the header's `pixdim` must already be
/// repaired (positive or not finite, `qfac` of 1 or -1).
pub(crate) fn best(
    header: &mut NiftiHeader,
    shape: [usize; 3],
    notes: &mut Vec<String>,
) -> Result<Affine, String> {
    let wild = (1..4).find(|&axis| !header.pixdim[axis].is_finite());
    let spaced = |header: &NiftiHeader| match wild {
        Some(axis) => {
            Err(format!("needs pixdim[{axis}] (the spacing), which is {}", header.pixdim[axis]))
        }
        None => Ok(()),
    };
    let by_qform = |header: &NiftiHeader| {
        spaced(header)?;
        usable(qform(header).ok_or("has a quaternion longer than 1, or one that is not finite")?)
    };
    if header.sform_code == 0 {
        if header.qform_code == 0 {
            spaced(header).map_err(|fault| format!("the grid without sform and qform {fault}"))?;
            return usable(base(header, shape));
        }
        return by_qform(header)
            .map_err(|fault| format!("the qform {fault}, and there is no sform; {REMEDY}"));
    }
    match usable(sform(header)) {
        Ok(affine) => {
            for axis in 0..3 {
                if header.pixdim[axis + 1].is_finite() {
                    continue;
                }
                let step = spacing(&affine)[axis];
                notes.push(format!(
                    "pixdim[{}] (the spacing) is {}: the sform's, {step}, was taken",
                    axis + 1,
                    header.pixdim[axis + 1]
                ));
                #[expect(clippy::cast_possible_truncation, reason = "the field is an f32")]
                {
                    header.pixdim[axis + 1] = step as f32;
                }
            }
            Ok(affine)
        }
        Err(fault) if header.qform_code == 0 => {
            Err(format!("the sform {fault}, and there is no qform; {REMEDY}"))
        }
        Err(fault) => {
            let affine = by_qform(header)
                .map_err(|other| format!("the sform {fault}, and the qform {other}; {REMEDY}"))?;
            notes.push(format!("the sform {fault}: the qform was believed"));
            header.sform_code = 0;
            (header.srow_x, header.srow_y, header.srow_z) = ([0.0; 4], [0.0; 4], [0.0; 4]);
            Ok(affine)
        }
    }
}

/// Advice for an image with no usable sform or qform: take the affine of a matching image.
const REMEDY: &str = "give it the affine of the image that it belongs to: python -c \"import nibabel \
                      as n; i = n.load('IN.nii.gz'); n.save(n.Nifti1Image(i.dataobj[...], \
                      n.load('OTHER.nii.gz').affine), 'OUT.nii.gz')\"";

/// Returns `affine` if it can be inverted. The error is a predicate for the caller's message, such
/// as "has a column of zeros".
fn usable(affine: Affine) -> Result<Affine, String> {
    if affine.iter().flatten().any(|x| !x.is_finite()) {
        return Err("has values that are not finite".into());
    }
    let columns = normalised(&affine).ok_or("has a column of zeros")?;
    if determinant(&columns).abs() < SINGULAR {
        return Err("cannot be inverted (two axes are parallel)".into());
    }
    Ok(affine)
}

/// The header of a grid with this affine in mm, which becomes the sform, with nibabel's code.
///
/// Without one, the sform is the identity in an unknown unit. A code of "unknown" would say more,
/// but with it readers ignore the sform and take an affine of their own: nibabel's mirrors x.
pub(crate) fn header_of(affine: Option<&Affine>) -> Result<NiftiHeader, String> {
    let (mut affine, unit) = match affine {
        Some(affine) => (*affine, 2),
        None => (IDENTITY, 0),
    };
    if affine[3] != [0., 0., 0., 1.] {
        return Err(format!("has the last row {:?}, not [0, 0, 0, 1]", affine[3]));
    }
    #[expect(clippy::cast_possible_truncation, reason = "NIfTI stores its affines as f32")]
    let rows = affine.map(|row| row.map(|x| x as f32));
    affine = rows.map(|row| row.map(f64::from));
    let [dx, dy, dz] = spacing(&usable(affine)?);
    #[expect(clippy::cast_possible_truncation, reason = "NIfTI stores its spacing as f32")]
    let pixdim = [1., dx as f32, dy as f32, dz as f32, 1., 1., 1., 1.];
    Ok(NiftiHeader {
        pixdim,
        xyzt_units: unit,
        qform_code: 0,
        sform_code: 2,
        srow_x: rows[0],
        srow_y: rows[1],
        srow_z: rows[2],
        ..NiftiHeader::default()
    })
}

pub(crate) fn sform(header: &NiftiHeader) -> Affine {
    let row = |r: [f32; 4]| r.map(f64::from);
    [row(header.srow_x), row(header.srow_y), row(header.srow_z), [0., 0., 0., 1.]]
}

/// The qform's affine; `None` where the quaternion is no rotation.
pub(crate) fn qform(header: &NiftiHeader) -> Option<Affine> {
    // nibabel's tolerance: three times the precision of the stored f32.
    let tolerance = 3.0 * f64::from(f32::EPSILON);
    let quaternion = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
    let [qfac, dx, dy, dz] = [0, 1, 2, 3].map(|i| f64::from(header.pixdim[i]));
    let origin = [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from);
    rotated(quaternion, [dx, dy, dz * qfac], origin, tolerance)
}

/// The affine of a rotation, of the voxel steps `step` and of the first voxel's position `origin`.
/// `quaternion` holds the imaginary parts of the rotation's unit quaternion; `None` if their
/// squared norm exceeds 1 by `tolerance` or more.
pub(crate) fn rotated(
    quaternion: [f64; 3],
    step: [f64; 3],
    origin: [f64; 3],
    tolerance: f64,
) -> Option<Affine> {
    let [x, y, z] = quaternion;
    let w_squared = 1.0 - (x * x + y * y + z * z);
    let w = if w_squared.abs() < tolerance {
        0.0
    } else if w_squared > 0.0 {
        w_squared.sqrt()
    } else {
        return None;
    };
    let scale = 2.0 / (w * w + x * x + y * y + z * z);
    let rotation = [
        [1. - scale * (y * y + z * z), scale * (x * y - w * z), scale * (x * z + w * y)],
        [scale * (x * y + w * z), 1. - scale * (x * x + z * z), scale * (y * z - w * x)],
        [scale * (x * z - w * y), scale * (y * z + w * x), 1. - scale * (x * x + y * y)],
    ];
    let row = |r: usize| {
        [rotation[r][0] * step[0], rotation[r][1] * step[1], rotation[r][2] * step[2], origin[r]]
    };
    Some([row(0), row(1), row(2), [0., 0., 0., 1.]])
}

/// The affine without sform and qform: the header's spacing, the grid's centre at the origin, and x
/// running to the patient's left.
fn base(header: &NiftiHeader, shape: [usize; 3]) -> Affine {
    let mut affine = [[0.; 4], [0.; 4], [0.; 4], [0., 0., 0., 1.]];
    for axis in 0..3 {
        let sign = if axis == 0 { -1.0 } else { 1.0 };
        let step = sign * f64::from(header.pixdim[axis + 1]);
        affine[axis][axis] = step;
        affine[axis][3] = -step * (shape[axis] as f64 - 1.0) / 2.0;
    }
    affine
}

/// The affine of the same field of view on a grid of another size.
///
/// Voxel centres lie where a half-pixel resize puts them:
/// `old = new·s + (s - 1)/2` with `s = from/to`.
pub(crate) fn resized(affine: &Affine, from: [usize; 3], to: [usize; 3]) -> Affine {
    let mut out = *affine;
    for row in 0..3 {
        for axis in 0..3 {
            let scale = from[axis] as f64 / to[axis] as f64;
            out[row][axis] = affine[row][axis] * scale;
            out[row][3] += affine[row][axis] * (scale - 1.0) / 2.0;
        }
    }
    out
}

/// The length of each voxel axis' step, in the affine's unit.
pub(crate) fn spacing(affine: &Affine) -> [f64; 3] {
    [0, 1, 2].map(|c| (0..3).map(|r| affine[r][c].powi(2)).sum::<f64>().sqrt())
}

/// The volume of a voxel, in the cube of the affine's unit.
pub(crate) fn voxel_volume(affine: &Affine) -> f64 {
    determinant(&[0, 1, 2].map(|r| [affine[r][0], affine[r][1], affine[r][2]])).abs()
}

/// The scanner-space position of a voxel index, which may lie between voxels.
pub(crate) fn apply(affine: &Affine, voxel: [f64; 3]) -> [f64; 3] {
    [0, 1, 2].map(|r| affine[r][3] + (0..3).map(|c| affine[r][c] * voxel[c]).sum::<f64>())
}

/// Which anatomical axis each voxel axis follows most, and in which direction.
///
/// # Example
///
/// ```
/// use medcam::volumes::Orientation;
///
/// let orientation: Orientation = "LPS".parse().unwrap();
/// assert_eq!(orientation.codes(), ['L', 'P', 'S']);
/// assert!("RAX".parse::<Orientation>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation([Direction; 3]);

/// One anatomical axis (0: left-right, 1: posterior-anterior, 2: inferior-superior) with its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) world: usize,
    pub(crate) positive: bool,
}

impl Orientation {
    /// Right, anterior, superior: the "canonical" orientation.
    pub const RAS: Self = Self([
        Direction { world: 0, positive: true },
        Direction { world: 1, positive: true },
        Direction { world: 2, positive: true },
    ]);

    /// The letters towards which the three axes run, such as `['R', 'A', 'S']`.
    pub fn codes(&self) -> [char; 3] {
        self.0.map(|d| LETTERS[d.world][usize::from(d.positive)])
    }

    /// The orientation of `affine`'s voxel axes, by the algorithm of nibabel's `io_orientation`.
    pub(crate) fn of(affine: &Affine) -> Self {
        // An affine that passed `best` has no zero column.
        let mut rotation = nearest_rotation(normalised(affine).unwrap_or([[0.0; 3]; 3]));
        let strength =
            [0, 1, 2].map(|c| (0..3).map(|r| rotation[r][c].powi(2)).fold(0.0, f64::max));
        let mut columns = [0, 1, 2];
        columns.sort_by(|&a: &usize, &b| strength[b].total_cmp(&strength[a]));
        let mut directions = Self::RAS.0;
        for column in columns {
            // The first of equal values wins, as in NumPy's argmax.
            let mut world = 0;
            for row in 1..3 {
                if rotation[row][column].abs() > rotation[world][column].abs() {
                    world = row;
                }
            }
            directions[column] = Direction { world, positive: rotation[world][column] >= 0.0 };
            rotation[world] = [0.0; 3];
        }
        Self(directions)
    }

    /// For each axis of `self`, the axis of `other` that runs along it, and whether backwards.
    pub(crate) fn axes_from(&self, other: &Self) -> [(usize, bool); 3] {
        self.0.map(|wanted| {
            let axis = other.0.iter().position(|d| d.world == wanted.world).unwrap_or(0);
            (axis, other.0[axis].positive != wanted.positive)
        })
    }
}

impl FromStr for Orientation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "orientation \"{text}\" is not one of the 48 codes: one letter each of \
                 L or R, P or A, I or S, in the order of the axes, such as \"RAS\""
            )
        };
        let mut directions = Vec::new();
        for letter in text.chars() {
            let world = LETTERS.iter().position(|pair| pair.contains(&letter));
            let world = world.ok_or_else(refuse)?;
            if directions.iter().any(|d: &Direction| d.world == world) {
                return Err(refuse());
            }
            directions.push(Direction { world, positive: LETTERS[world][1] == letter });
        }
        directions.try_into().map(Self).map_err(|_| refuse())
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codes().iter().try_for_each(|c| write!(f, "{c}"))
    }
}

/// The upper left 3x3 with columns of length 1; `None` where a column is zero.
fn normalised(affine: &Affine) -> Option<Matrix3> {
    let length = spacing(affine);
    if length.iter().any(|&l| l <= 0.0 || !l.is_finite()) {
        return None;
    }
    Some([0, 1, 2].map(|r| [0, 1, 2].map(|c| affine[r][c] / length[c])))
}

fn determinant(m: &Matrix3) -> f64 {
    let cofactors = cofactors(m);
    (0..3).map(|c| m[0][c] * cofactors[0][c]).sum()
}

fn cofactors(m: &Matrix3) -> Matrix3 {
    [0, 1, 2].map(|r| {
        [0, 1, 2].map(|c| {
            let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
            m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
        })
    })
}

/// The orthogonal factor of the polar decomposition, by Newton's iteration
/// `X <- (X + X⁻ᵀ)/2`, which doubles the correct digits with each step.
fn nearest_rotation(mut x: Matrix3) -> Matrix3 {
    for _ in 0..64 {
        let inverse_transposed = {
            let d = determinant(&x);
            cofactors(&x).map(|row| row.map(|v| v / d))
        };
        let next = [0, 1, 2].map(|r| [0, 1, 2].map(|c| (x[r][c] + inverse_transposed[r][c]) / 2.0));
        let change = (0..9).map(|i| (next[i / 3][i % 3] - x[i / 3][i % 3]).abs());
        let done = change.fold(0.0, f64::max) < 1e-15;
        x = next;
        if done {
            break;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_size_grid_keeps_the_field_of_view() {
        // 4 voxels of 2 mm from 10 mm on: they fill 9..17 mm. Two voxels of 4 mm: 11 and 15 mm.
        let mut affine = [[0.; 4], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]];
        affine[0] = [2., 0., 0., 10.];
        let out = resized(&affine, [4, 1, 1], [2, 1, 1]);
        assert_eq!(apply(&out, [0., 0., 0.])[0], 11.0);
        assert_eq!(apply(&out, [1., 0., 0.])[0], 15.0);
    }

    #[test]
    fn a_half_turn_quaternion_flips_two_axes() {
        // b = 1: a half turn about x. qfac -1 flips z once more.
        let mut header = NiftiHeader { quatern_b: 1.0, ..NiftiHeader::default() };
        header.pixdim[..4].copy_from_slice(&[-1., 2., 3., 4.]);
        let affine = qform(&header).unwrap();
        let diagonal = [affine[0][0], affine[1][1], affine[2][2]];
        assert_eq!(diagonal, [2., -3., 4.]);
    }

    #[test]
    fn without_forms_the_grid_is_centred_and_x_runs_left() {
        let mut header = NiftiHeader { sform_code: 0, qform_code: 0, ..NiftiHeader::default() };
        header.pixdim[1..4].copy_from_slice(&[3., 2., 1.]);
        let affine = best(&mut header, [3, 5, 7], &mut Vec::new()).unwrap();
        assert_eq!(affine[0], [-3., 0., 0., 3.]);
        assert_eq!(affine[1], [0., 2., 0., -4.]);
        assert_eq!(Orientation::of(&affine).codes(), ['L', 'A', 'S']);
    }
}
