//! What a caller chooses from. C passes numbers, and any number may come.

use medcam_ops::ops::{Denominator, Elementwise, Interpolation, Method};

use crate::status::Failure;

/// How an activation `A` and its gradient `G` become a map `L`; `b` is the sample, `c` the channel,
/// `n` the voxel.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum medcam_method {
    /// Grad-CAM: `L[b,n] = ReLU(sum_c w[b,c] A[b,c,n])` with `w[b,c] = mean_n G[b,c,n]`
    /// (arXiv 1610.02391, equations 1 and 2).
    MEDCAM_GRAD_CAM = 0,
    /// Grad-CAM++: the same with the weights of `medcam_alpha_weights` and `MEDCAM_PAPER`.
    MEDCAM_GRAD_CAM_PLUS_PLUS = 1,
    /// Grad-CAM++ with the weights of `MEDCAM_M3D_CAM`.
    MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM = 2,
    /// HiResCAM: `L[b,n] = ReLU(sum_c G[b,c,n] A[b,c,n])` (arXiv 2011.08891).
    MEDCAM_HIRES_CAM = 3,
    /// LayerCAM: `L[b,n] = ReLU(sum_c ReLU(G[b,c,n]) A[b,c,n])` (doi 10.1109/TIP.2021.3089943).
    MEDCAM_LAYER_CAM = 4,
    /// Grad-CAM++ with the weights of `MEDCAM_PAPER_EPSILON`.
    MEDCAM_GRAD_CAM_PLUS_PLUS_PAPER_EPSILON = 5,
    /// Grad-CAM++ with the weights of `MEDCAM_M3D_CAM_EPSILON`.
    MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM_EPSILON = 6,
}

/// D and epsilon in the denominator `2 G^2 + D + epsilon` of Grad-CAM++.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum medcam_denominator {
    /// `D = (sum_m A[b,c,m]) G[b,c,n]^3`: equation 19 of the paper (arXiv 1710.11063). Epsilon is 0.
    MEDCAM_PAPER = 0,
    /// `D = sum_m A[b,c,m] G[b,c,m]^3`, one value for each channel: M3d-CAM's and MONAI's. Epsilon
    /// is 0.
    MEDCAM_M3D_CAM = 1,
    /// D of `MEDCAM_PAPER`, epsilon 1e-6: as pytorch-grad-cam 1.5.
    MEDCAM_PAPER_EPSILON = 2,
    /// D of `MEDCAM_M3D_CAM`, epsilon 1e-7: as M3d-CAM 0.1.22 and MONAI 1.6.
    MEDCAM_M3D_CAM_EPSILON = 3,
}

/// How a value between voxels is computed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum medcam_interpolation {
    /// Bilinear in 2D, trilinear in 3D; PyTorch's with align_corners=False.
    MEDCAM_LINEAR = 0,
    /// The voxel that the position lies in; PyTorch's "nearest-exact".
    MEDCAM_NEAREST = 1,
}

/// The method of a number.
pub fn method(number: i32) -> Result<Method, Failure> {
    use medcam_method as M;
    [
        (M::MEDCAM_GRAD_CAM, Method::GradCam),
        (M::MEDCAM_GRAD_CAM_PLUS_PLUS, Method::GradCamPlusPlus(Denominator::Paper)),
        (M::MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM, Method::GradCamPlusPlus(Denominator::M3dCam)),
        (M::MEDCAM_HIRES_CAM, Method::HiResCam),
        (M::MEDCAM_LAYER_CAM, Method::LayerCam),
        (
            M::MEDCAM_GRAD_CAM_PLUS_PLUS_PAPER_EPSILON,
            Method::GradCamPlusPlus(Denominator::PaperEpsilon),
        ),
        (
            M::MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM_EPSILON,
            Method::GradCamPlusPlus(Denominator::M3dCamEpsilon),
        ),
    ]
    .into_iter()
    .find_map(|(known, method)| (known as i32 == number).then_some(method))
    .ok_or_else(|| Failure::invalid(format!("method: {number} is none of medcam_method")))
}

/// The method of a number, of those without channel weights.
pub fn elementwise(number: i32) -> Result<Elementwise, Failure> {
    match method(number)? {
        Method::HiResCam => Ok(Elementwise::HiResCam),
        Method::LayerCam => Ok(Elementwise::LayerCam),
        other => Err(Failure::invalid(format!(
            "method: {other:?} has channel weights; call medcam_project with them"
        ))),
    }
}

/// The denominator of a number.
pub fn denominator(number: i32) -> Result<Denominator, Failure> {
    use medcam_denominator as D;
    [
        (D::MEDCAM_PAPER, Denominator::Paper),
        (D::MEDCAM_M3D_CAM, Denominator::M3dCam),
        (D::MEDCAM_PAPER_EPSILON, Denominator::PaperEpsilon),
        (D::MEDCAM_M3D_CAM_EPSILON, Denominator::M3dCamEpsilon),
    ]
    .into_iter()
    .find_map(|(known, denominator)| (known as i32 == number).then_some(denominator))
    .ok_or_else(|| Failure::invalid(format!("denominator: {number} is none of medcam_denominator")))
}

/// The interpolation of a number.
pub fn interpolation(number: i32) -> Result<Interpolation, Failure> {
    match number {
        n if n == medcam_interpolation::MEDCAM_LINEAR as i32 => Ok(Interpolation::Linear),
        n if n == medcam_interpolation::MEDCAM_NEAREST as i32 => Ok(Interpolation::Nearest),
        _ => Err(Failure::invalid(format!(
            "interpolation: {number} is none of medcam_interpolation"
        ))),
    }
}
