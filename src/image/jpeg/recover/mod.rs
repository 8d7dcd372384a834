//! Damaged JPEG files as libjpeg-turbo 3 reads them on behalf of Pillow 13: entropy-coded data is decoded to coefficients by its
//! rules of recovery (`jdmarker.c`, `jdhuff.c`, `jdphuff.c`, `jdcoefct.c`), which are then written as a sound file for the strict
//! decoder. The file is read in windows, as Pillow hands it to libjpeg: which files are refused depends on where a window ends.

mod segments;

use std::rc::Rc;

use super::coefficients::{Component, Extent, blocks_of_mcus};
use super::huffman::{STANDARD_TABLES, Table};

/// Pillow's `ImageFile.MAXBLOCK`.
const WINDOW: usize = 1 << 16;
/// Most pixels of a damaged picture: its coefficients take six bytes for each.
const MOST_PIXELS: usize = 1 << 26;
/// Most scans: files have some ten, and each takes as long as the picture is large.
const MOST_SCANS: usize = 200;

/// Why decoding does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The window is used up; the same is tried again with a larger one.
    Suspend,
    /// libjpeg or Pillow refuses the file.
    Refused(&'static str),
    /// Coded in a way that is not read here.
    Unknown,
}

pub(super) type Step<T> = Result<T, Stop>;

fn refused<T>(reason: &'static str) -> Step<T> {
    Err(Stop::Refused(reason))
}

/// What marker segments lead to.
#[derive(PartialEq, Eq)]
enum Next {
    Scan,
    End,
}

/// Why a file is refused whose scans have an invalid Huffman table.
pub(super) const WRONG_TABLE: &str = "one of its Huffman tables is damaged";

/// A Huffman table as it is stored: how many codes of each length there are, and their symbols.
type StoredTable = ([u8; 16], Vec<u8>);

/// What the frame's header says of a component.
struct Head {
    id: u8,
    sampling: Extent,
    table: usize,
}

/// The header of the scan at hand.
#[derive(Default)]
pub(super) struct Scan {
    /// Places of its components in the frame.
    pub(super) components: Vec<usize>,
    /// For each, the tables for DC and AC that it names.
    table_numbers: Vec<(u8, u8)>,
    /// For each, the tables themselves, where the scan needs them.
    pub(super) tables: Rc<[(Option<Table>, Option<Table>)]>,
    /// First and last coefficient.
    pub(super) band: (usize, usize),
    /// Successive approximation: the bit before, and the bit of this scan.
    pub(super) bits: (u8, u8),
}

/// A file on its way to coefficients.
pub(super) struct Recovery<'a> {
    pub(super) data: &'a [u8],
    pub(super) at: usize,
    pub(super) end: usize,
    /// A marker that was met and is not dealt with yet; 0 for none.
    pub(super) unread: u8,
    quantization: [Option<[u16; 64]>; 4],
    tables: [[Option<StoredTable>; 4]; 2],
    pub(super) interval: usize,
    pub(super) size: Option<Extent>,
    pub(super) components: Vec<Component>,
    pub(super) is_progressive: bool,
    pub(super) scans: usize,
    pub(super) scan: Scan,
    restart_number: u8,
    pub(super) last_good_row: usize,
    /// The application segments, which say what the components mean.
    pub(super) applications: Vec<u8>,
    // The state of the entropy decoder.
    pub(super) buffer: u64,
    pub(super) left: u32,
    pub(super) insufficient: bool,
    pub(super) last_dc: [i32; 4],
    pub(super) end_of_band_run: u32,
    pub(super) to_go: usize,
    /// Data has ended early, a code was invalid, or a restart marker was missing.
    pub(super) damaged: bool,
}

impl<'a> Recovery<'a> {
    /// Decodes a file to its end.
    pub(super) fn run(data: &'a [u8]) -> Step<Self> {
        let mut recovery = Self {
            data,
            at: 0,
            end: WINDOW.min(data.len()),
            unread: 0,
            quantization: [None; 4],
            tables: Default::default(),
            interval: 0,
            size: None,
            components: Vec::new(),
            is_progressive: false,
            scans: 0,
            scan: Scan::default(),
            restart_number: 0,
            last_good_row: 0,
            applications: Vec::new(),
            buffer: 0,
            left: 0,
            insufficient: false,
            last_dc: [0; 4],
            end_of_band_run: 0,
            to_go: 0,
            damaged: false,
        };
        recovery.read()?;
        Ok(recovery)
    }

    fn read(&mut self) -> Step<()> {
        self.begin_stream()?;
        while self.markers()? == Next::End {
            // Tables alone: another stream follows at once, and they stay.
            if self.size.is_some() {
                return refused("it has no scan");
            }
            self.begin_stream()?;
            self.interval = 0;
            self.applications.clear();
        }
        if !self.is_progressive {
            for (class, numbers) in STANDARD_TABLES.iter().enumerate() {
                for (number, (counts, symbols)) in numbers.iter().enumerate() {
                    self.tables[class][number].get_or_insert_with(|| (*counts, symbols.to_vec()));
                }
            }
        }
        let is_single = self.is_single();
        self.read_scan(is_single)?;
        if is_single {
            // The picture is done: what follows may only be wrong, not missing.
            return match self.try_markers() {
                Ok(Next::Scan) => refused("it has another scan"),
                Ok(Next::End) | Err(Stop::Suspend) => Ok(()),
                Err(other) => Err(other),
            };
        }
        while self.markers()? == Next::Scan {
            self.read_scan(false)?;
        }
        if self.is_progressive {
            super::smoothing::smooth(&mut self.components, self.scans, self.last_good_row);
        }
        Ok(())
    }

    /// The start of image, which begins a stream.
    fn begin_stream(&mut self) -> Step<()> {
        while self.at + 2 > self.end {
            self.enlarge()?;
        }
        if self.data[self.at..self.at + 2] != [0xff, 0xd8] {
            return refused("it does not begin with a start of image");
        }
        self.at += 2;
        Ok(())
    }

    /// Whether one scan holds the whole picture.
    fn is_single(&self) -> bool {
        !self.is_progressive && self.scan.components.len() == self.components.len()
    }

    /// Pillow gives the next window, or gives up.
    fn enlarge(&mut self) -> Step<()> {
        if self.end == self.data.len() {
            return refused("the file is truncated");
        }
        self.end = (self.end + WINDOW).min(self.data.len());
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Step<u8> {
        if self.at >= self.end {
            return Err(Stop::Suspend);
        }
        self.at += 1;
        Ok(self.data[self.at - 1])
    }

    fn word(&mut self) -> Step<usize> {
        Ok(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    /// Marker segments up to a scan or the end, with as large a window as that takes.
    fn markers(&mut self) -> Step<Next> {
        loop {
            match self.try_markers() {
                Err(Stop::Suspend) => self.enlarge()?,
                other => return other,
            }
        }
    }

    fn try_markers(&mut self) -> Step<Next> {
        loop {
            if self.unread == 0 {
                self.next_marker()?;
            }
            let start = self.at;
            let next = self.segment(self.unread).inspect_err(|_| self.at = start)?;
            self.unread = 0;
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    /// The next marker; whatever is before it is passed over.
    pub(super) fn next_marker(&mut self) -> Step<()> {
        let start = self.at;
        let mut find = || loop {
            while self.byte()? != 0xff {}
            let mut code = 0xff;
            while code == 0xff {
                code = self.byte()?;
            }
            if code != 0 {
                return Ok(code);
            }
        };
        self.unread = find().inspect_err(|_| self.at = start)?;
        Ok(())
    }

    fn start_scan(&mut self) -> Step<()> {
        let (first, last) = self.scan.band;
        let (high, low) = self.scan.bits;
        let members = self.scan.components.clone();
        let blocks: usize = members.iter().map(|at| self.components[*at].blocks_of_mcu()).sum();
        if members.len() > 1 && blocks > 10 {
            return refused("too many blocks at once");
        }
        for at in &members {
            let component = &mut self.components[*at];
            if component.quantization.is_none() {
                let table = self.quantization.get(component.table).copied().flatten();
                component.quantization = Some(table.ok_or(Stop::Refused("a quantization table is missing"))?);
            }
        }
        if self.is_progressive {
            let band = if first == 0 { last == 0 } else { first <= last && last <= 63 && members.len() == 1 };
            if !band || high != 0 && low != high.wrapping_sub(1) || low > 13 {
                return refused("an invalid progression");
            }
            for at in &members {
                let component = &mut self.components[*at];
                for k in first.min(1)..=last.max(9) {
                    component.bits_before[k] = if self.scans > 1 { component.bits[k] } else { 0 };
                }
                component.bits[first..=last].fill(i32::from(low));
            }
        }
        let wants_dc = !self.is_progressive || first == 0 && high == 0;
        let wants_ac = !self.is_progressive || first != 0;
        let mut tables = Vec::new();
        for (dc, ac) in &self.scan.table_numbers {
            let table = |class: usize, number: u8| {
                let stored = self.tables[class].get(usize::from(number)).and_then(Option::as_ref);
                let (counts, symbols) = stored.ok_or(Stop::Refused("a Huffman table is missing"))?;
                Table::new(counts, symbols, class == 0).ok_or(Stop::Refused(WRONG_TABLE))
            };
            tables.push((wants_dc.then(|| table(0, *dc)).transpose()?, wants_ac.then(|| table(1, *ac)).transpose()?));
        }
        self.scan.tables = tables.into();
        (self.buffer, self.left, self.insufficient) = (0, 0, false);
        (self.last_dc, self.end_of_band_run, self.to_go) = ([0; 4], 0, self.interval);
        Ok(())
    }

    fn read_scan(&mut self, is_single: bool) -> Step<()> {
        self.start_scan()?;
        let components: Vec<&Component> = self.components.iter().collect();
        let places = blocks_of_mcus(&components, &self.scan.components);
        let mut mcu = Vec::new();
        for index in 0..places.count() {
            let row = places.blocks(index, &mut mcu);
            loop {
                if !self.insufficient {
                    self.last_good_row = row;
                }
                match self.try_mcu(&mcu) {
                    Ok(()) => break,
                    Err(Stop::Suspend) => self.enlarge()?,
                    Err(other) => return Err(other),
                }
                if is_single {
                    mcu.iter().for_each(|(_, place, block)| self.components[*place].blocks[*block] = [0; 64]);
                }
            }
            if self.interval > 0 {
                self.to_go -= 1;
            }
        }
        Ok(())
    }

    fn try_mcu(&mut self, mcu: &[(usize, usize, usize)]) -> Step<()> {
        if self.interval > 0 && self.to_go == 0 {
            self.restart()?;
        }
        let state = (self.at, self.buffer, self.left);
        let decoded = self.decode_mcu(mcu);
        if matches!(decoded, Err(Stop::Suspend)) {
            (self.at, self.buffer, self.left) = state;
        }
        decoded
    }

    /// The restart marker that has to come, or what comes in its place (`jpeg_resync_to_restart`).
    fn restart(&mut self) -> Step<()> {
        self.left = 0;
        if self.unread == 0 {
            self.next_marker()?;
        }
        let wanted = self.restart_number;
        if self.unread == 0xd0 + wanted {
            self.unread = 0;
        } else {
            self.damaged = true;
            loop {
                match self.unread {
                    // Not a valid marker: search on.
                    ..0xc0 => self.next_marker()?,
                    0xd0..=0xd7 => match (self.unread - 0xd0).wrapping_sub(wanted) & 7 {
                        // One of the next two: the data up to it is lost.
                        1 | 2 => break,
                        // One of the two before: search on.
                        6 | 7 => self.next_marker()?,
                        _ => {
                            self.unread = 0;
                            break;
                        }
                    },
                    _ => break,
                }
            }
        }
        self.restart_number = (wanted + 1) & 7;
        (self.last_dc, self.end_of_band_run, self.to_go) = ([0; 4], 0, self.interval);
        if self.unread == 0 {
            self.insufficient = false;
        }
        Ok(())
    }
}
