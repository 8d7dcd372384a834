//! The weight store: the tensors of a model's files, looked up once by name and shape, then viewed in place.

use std::collections::HashMap;

use gemmule_quant::{Format, MatrixView};

use crate::gguf::{GgufFile, TensorInfo};
use crate::{Error, Result};

/// Where a matrix lies; made by [`Store::matrix`], which has checked it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    file: usize,
    tensor: usize,
    format: Format,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// Output features.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Storage format.
    pub(crate) fn format(&self) -> Format {
        self.format
    }
}

/// Where a vector of `f32` lies; made by [`Store::vector`], which has checked it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vector {
    file: usize,
    tensor: usize,
}

/// The files of one model.
#[derive(Debug)]
pub(crate) struct Store {
    files: Vec<GgufFile>,
    index: HashMap<String, (usize, usize)>,
}

impl Store {
    /// A store over the model's files.
    ///
    /// # Errors
    /// When two files hold a tensor of the same name.
    pub(crate) fn new(files: Vec<GgufFile>) -> Result<Self> {
        let mut index = HashMap::new();
        for (file_index, file) in files.iter().enumerate() {
            for (tensor_index, tensor) in file.gguf().tensors().iter().enumerate() {
                if index.insert(tensor.name.clone(), (file_index, tensor_index)).is_some() {
                    let reason = format!("tensor '{}' is in another file of the pair too", tensor.name);
                    return Err(Error::model(file.gguf().name(), reason));
                }
            }
        }
        Ok(Self { files, index })
    }

    /// The files, the text half of a pair first.
    pub(crate) fn files(&self) -> &[GgufFile] {
        &self.files
    }

    /// What tells these files from others, by their lengths, headers and a sample of every tensor: the same for copies.
    pub(crate) fn fingerprint(&self) -> String {
        let (mut sum, mut bytes) = (crc32fast::Hasher::new(), 0);
        for file in &self.files {
            file.identify(&mut sum);
            bytes += file.bytes().len();
        }
        format!("{bytes}-{:08x}", sum.finalize())
    }

    /// Whether a tensor exists.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<(usize, usize, &TensorInfo, Format)> {
        let Some(&(file, tensor)) = self.index.get(name) else {
            let files: Vec<_> = self.files.iter().map(|file| file.gguf().name()).collect();
            return Err(Error::model(&files.join(" + "), format!("tensor '{name}' is missing")));
        };
        let info = &self.files[file].gguf().tensors()[tensor];
        let format = info.format.ok_or_else(|| {
            let reason = format!("tensor '{name}' is of type {}, which Gemmule cannot compute with", info.type_name());
            Error::model(self.files[file].gguf().name(), reason)
        })?;
        Ok((file, tensor, info, format))
    }

    /// How many numbers a tensor holds.
    ///
    /// # Errors
    /// When it is missing, or of a type that cannot be computed with.
    pub(crate) fn elements(&self, name: &str) -> Result<usize> {
        self.find(name).map(|(_, _, info, _)| info.elements() as usize)
    }

    fn shape_error(&self, file: usize, name: &str, found: &[u64], expected: &[usize]) -> Error {
        let reason = format!("tensor '{name}' has shape {found:?}, the model's configuration asks for {expected:?}");
        Error::model(self.files[file].gguf().name(), reason)
    }

    /// A matrix of `rows × columns`; trailing dimensions may be folded into the columns.
    ///
    /// # Errors
    /// When it is missing, of another shape, or of a type that cannot be computed with.
    pub(crate) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let (file, tensor, info, format) = self.find(name)?;
        let found_rows = *info.dimensions.last().expect("checked: at least one dimension") as usize;
        let found_columns = info.elements() as usize / found_rows;
        if (found_rows, found_columns) != (rows, columns) || (info.dimensions.len() == 1 && rows != 1) {
            return Err(self.shape_error(file, name, &info.dimensions, &[columns, rows]));
        }
        if info.dimensions.len() > 2 && format.info().block_len > 1 {
            return Err(Error::model(self.files[file].gguf().name(), format!("tensor '{name}' cannot be {format}")));
        }
        Ok(Matrix { file, tensor, format, rows, columns })
    }

    /// A vector of `len` numbers, which must be F32 and aligned.
    ///
    /// # Errors
    /// When it is missing, of another length, type or alignment.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vector> {
        let (file, tensor, info, format) = self.find(name)?;
        if info.elements() != len as u64 {
            return Err(self.shape_error(file, name, &info.dimensions, &[len]));
        }
        let handle = Vector { file, tensor };
        if format != Format::F32 || bytemuck::try_cast_slice::<u8, f32>(self.data(file, tensor)).is_err() {
            return Err(Error::model(
                self.files[file].gguf().name(),
                format!("tensor '{name}' must be F32 and aligned"),
            ));
        }
        Ok(handle)
    }

    /// A matrix's name in its file.
    pub(crate) fn name(&self, matrix: &Matrix) -> &str {
        &self.files[matrix.file].gguf().tensors()[matrix.tensor].name
    }

    fn data(&self, file: usize, tensor: usize) -> &[u8] {
        let file = &self.files[file];
        &file.bytes()[file.gguf().tensors()[tensor].range.clone()]
    }

    /// The matrix, in place.
    pub(crate) fn view(&self, matrix: &Matrix) -> MatrixView<'_> {
        let data = self.data(matrix.file, matrix.tensor);
        MatrixView::new(matrix.format, matrix.rows, matrix.columns, data).expect("checked when the handle was made")
    }

    /// The vector, in place.
    pub(crate) fn values(&self, vector: &Vector) -> &[f32] {
        bytemuck::cast_slice(self.data(vector.file, vector.tensor))
    }
}
