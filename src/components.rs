//! Connected components of a mask.

use ndarray::{ArrayD, ArrayViewD};
use petgraph::unionfind::UnionFind;

/// The connected components of the voxels above 0, in 2D or 3D. Returns their sizes in voxels,
/// largest first (of equal ones, the first in memory), and for each voxel the number of its
/// component in this order, from 1; 0 outside.
///
/// Voxels that share a face, an edge or a corner are connected (8 neighbours in 2D, 26 in 3D).
///
/// # Example
///
/// ```
/// use ndarray::array;
///
/// let mask = array![[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]].into_dyn();
/// let (sizes, labels) = medcam::components(&mask.view());
/// assert_eq!(sizes, [2, 1]);
/// assert_eq!(labels, array![[2, 0, 0], [0, 0, 1], [0, 1, 0]].into_dyn());
/// ```
pub fn components(mask: &ArrayViewD<f32>) -> (Vec<usize>, ArrayD<usize>) {
    let shape = mask.shape().to_vec();
    let strides: Vec<usize> =
        (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    let inside: Vec<bool> = mask.iter().map(|&value| value > 0.0).collect();
    let offsets: Vec<_> = earlier_neighbours(shape.len()).collect();
    let mut sets = UnionFind::<usize>::new(inside.len());
    let mut position = vec![0_usize; shape.len()];
    for voxel in 0..inside.len() {
        if inside[voxel] {
            for offset in &offsets {
                if let Some(other) = neighbour(&position, &shape, &strides, offset)
                    && inside[other]
                {
                    sets.union(voxel, other);
                }
            }
        }
        for axis in (0..shape.len()).rev() {
            position[axis] += 1;
            if position[axis] < shape[axis] {
                break;
            }
            position[axis] = 0;
        }
    }
    let roots = sets.into_labeling();
    let mut sizes = vec![0_usize; inside.len()];
    let mut order: Vec<usize> = Vec::new();
    for (&root, _) in roots.iter().zip(&inside).filter(|(_, inside)| **inside) {
        if sizes[root] == 0 {
            order.push(root);
        }
        sizes[root] += 1;
    }
    order.sort_by_key(|&root| std::cmp::Reverse(sizes[root]));
    let mut numbers = vec![0_usize; inside.len()];
    for (index, &root) in order.iter().enumerate() {
        numbers[root] = index + 1;
    }
    let labels = roots
        .iter()
        .zip(&inside)
        .map(|(&root, &inside)| if inside { numbers[root] } else { 0 })
        .collect();
    let labels = ArrayD::from_shape_vec(shape, labels).unwrap_or_default();
    (order.iter().map(|&root| sizes[root]).collect(), labels)
}

/// The offsets, -1 to 1 along each axis, of the neighbours that come before a voxel in memory.
fn earlier_neighbours(rank: usize) -> impl Iterator<Item = Vec<isize>> {
    let all = 3_usize.pow(u32::try_from(rank).unwrap_or(0));
    (0..all / 2).map(move |code| {
        let mut rest = code;
        let mut offset = vec![0; rank];
        for axis in (0..rank).rev() {
            offset[axis] = rest as isize % 3 - 1;
            rest /= 3;
        }
        offset
    })
}

fn neighbour(
    position: &[usize],
    shape: &[usize],
    strides: &[usize],
    offset: &[isize],
) -> Option<usize> {
    let mut index = 0;
    for axis in 0..shape.len() {
        let at = position[axis].checked_add_signed(offset[axis]).filter(|&at| at < shape[axis])?;
        index += at * strides[axis];
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::components;

    #[test]
    fn corners_connect_and_the_largest_comes_first() {
        let mask = array![
            [1.0, 0.0, 0.0, 0.0, 1.0],
            [0.0, 0.0, 0.0, 1.0, 0.0],
            [0.0, 1.0, 0.0, 0.0, 1.0],
            [0.0, 1.0, 0.0, 0.0, 0.0],
        ];
        let (sizes, labels) = components(&mask.into_dyn().view());
        assert_eq!(sizes, [3, 2, 1]);
        let expected = array![[3, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 2, 0, 0, 1], [0, 2, 0, 0, 0]];
        assert_eq!(labels, expected.into_dyn());
    }

    #[test]
    fn three_dimensions_connect_over_slices() {
        let mut mask = ndarray::Array3::<f32>::zeros((3, 3, 3));
        mask[[0, 0, 0]] = 1.0;
        mask[[1, 1, 1]] = 1.0;
        mask[[2, 2, 0]] = 1.0;
        mask[[0, 2, 2]] = 1.0;
        let (sizes, labels) = components(&mask.into_dyn().view());
        assert_eq!(sizes, [4]);
        assert_eq!(labels.sum(), 4);
    }

    #[test]
    fn nothing_has_no_components() {
        let (sizes, labels) = components(&ndarray::ArrayD::zeros(vec![2, 3]).view());
        assert!(sizes.is_empty());
        assert_eq!(labels.sum(), 0);
    }
}
