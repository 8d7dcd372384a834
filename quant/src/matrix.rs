//! Borrowed views of matrices in block formats.

use crate::Format;

/// A row-major matrix of `rows × columns` values, borrowed from wherever its bytes lie.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    format: Format,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    data: &'a [u8],
}

impl<'a> MatrixView<'a> {
    /// A view, if `data` is exactly `rows` rows of `columns` values of `format`.
    pub fn new(format: Format, rows: usize, columns: usize, data: &'a [u8]) -> Option<Self> {
        let row_bytes = format.row_bytes(columns)?;
        (row_bytes.checked_mul(rows)? == data.len()).then_some(Self { format, rows, columns, row_bytes, data })
    }

    /// The storage format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Output features of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features of the product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The bytes of all rows.
    pub fn bytes(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.data[row * self.row_bytes..][..self.row_bytes]
    }

    /// The bytes of values `start .. start + len` of one row; both are whole numbers of blocks.
    pub fn row_part(&self, row: usize, start: usize, len: usize) -> &'a [u8] {
        let info = self.format.info();
        let bytes = |values: usize| values / info.block_len * info.block_bytes;
        &self.row(row)[bytes(start)..bytes(start + len)]
    }

    /// Rows of a floating-point format; `None` for any other.
    pub fn strided_rows(&self, rows: std::ops::Range<usize>) -> Option<StridedRows<'a>> {
        let bytes = &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes];
        StridedRows::new(self.format, rows.len(), self.columns, self.row_bytes, bytes)
    }
}

/// Rows of a floating-point format that lie at equal distances.
#[derive(Clone, Copy, Debug)]
pub struct StridedRows<'a> {
    format: Format,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    stride: usize,
    data: &'a [u8],
}

impl<'a> StridedRows<'a> {
    /// `rows` rows of `columns` values, `stride` bytes apart from the beginning of `data` on, if it holds them and `format`
    /// is a floating-point format.
    pub fn new(format: Format, rows: usize, columns: usize, stride: usize, data: &'a [u8]) -> Option<Self> {
        let row_bytes = format.row_bytes(columns).filter(|_| !format.info().integer)?;
        let end = match rows.checked_sub(1) {
            Some(last) => last.checked_mul(stride)?.checked_add(row_bytes)?,
            None => 0,
        };
        (end <= data.len()).then_some(Self { format, rows, columns, row_bytes, stride, data })
    }

    /// The storage format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Distance between rows in bytes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.data[row * self.stride..][..self.row_bytes]
    }
}
