//! Huffman tables of JPEG (ITU-T T.81, annexes C and K).

/// A table as it is stored: how many codes of each length there are, and their symbols.
type Stored = ([u8; 16], &'static [u8]);

/// The tables of annex K, for DC and for AC, for brightness and for colours; a sequential file without its own has these.
pub(super) const STANDARD_TABLES: [[Stored; 2]; 2] = [
    [
        ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ],
    [
        (
            [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
            b"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\x08\x23\x42\xb1\xc1\
              \x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\
              \x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\
              \x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\
              \xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\
              \xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa",
        ),
        (
            [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
            b"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\x14\x42\x91\xa1\xb1\xc1\x09\
              \x23\x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36\x37\x38\
              \x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\
              \x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\
              \xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\
              \xd7\xd8\xd9\xda\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa",
        ),
    ],
];

/// Bits of the longest code.
const LONGEST: usize = 16;

/// A table made ready for decoding (`jpeg_make_d_derived_tbl`).
#[derive(Clone)]
pub(super) struct Table {
    symbols: [u8; 256],
    /// The largest code of each length, −1 where there is none; every code of seventeen bits ends the search.
    largest: [i32; LONGEST + 2],
    offsets: [i32; LONGEST + 1],
    /// Length and symbol of the code that eight bits begin with, length 0 where it is longer.
    short: [(u8, u8); 256],
}

impl Table {
    /// None where the counts make no valid code, or a DC table has a size above 15.
    pub(super) fn new(counts: &[u8; 16], stored: &[u8], is_dc: bool) -> Option<Self> {
        let mut symbols = [0; 256];
        symbols[..stored.len().min(256)].copy_from_slice(&stored[..stored.len().min(256)]);
        let mut table = Self { symbols, largest: [-1; LONGEST + 2], offsets: [0; LONGEST + 1], short: [(0, 0); 256] };
        table.largest[LONGEST + 1] = i32::MAX;
        let (mut code, mut place) = (0usize, 0usize);
        for length in 1..=LONGEST {
            let count = usize::from(counts[length - 1]);
            if count > 0 {
                table.offsets[length] = place as i32 - code as i32;
                table.largest[length] = (code + count) as i32 - 1;
                // No code is all ones.
                if code + count >= 1 << length || place + count > 256 {
                    return None;
                }
                for index in (0..count).filter(|_| length <= 8) {
                    let first = (code + index) << (8 - length);
                    let symbol = symbols[place + index];
                    table.short[first..first + (1 << (8 - length))].fill((length as u8, symbol));
                }
            }
            code = (code + count) << 1;
            place += count;
        }
        (!is_dc || symbols[..place].iter().all(|symbol| *symbol <= 15)).then_some(table)
    }

    /// Length and symbol of the code that these eight bits begin with, if it has eight bits at most.
    pub(super) fn short(&self, bits: u8) -> Option<(u32, u8)> {
        let (length, symbol) = self.short[usize::from(bits)];
        (length > 0).then_some((u32::from(length), symbol))
    }

    /// Whether the `length` bits in `code` are only the beginning of a longer code.
    pub(super) fn goes_on(&self, code: u32, length: usize) -> bool {
        code as i32 > self.largest[length]
    }

    /// The symbol of a code; 0 for an invalid one.
    pub(super) fn symbol(&self, code: u32, length: usize) -> u8 {
        if length > LONGEST { 0 } else { self.symbols[(code as i32 + self.offsets[length]) as usize & 255] }
    }
}
