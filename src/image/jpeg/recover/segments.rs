//! Marker segments (`jdmarker.c`), with what Pillow refuses of them.

use super::super::coefficients::{Component, Extent, Frame, ZIGZAG};
use super::{Head, MOST_PIXELS, MOST_SCANS, Next, Recovery, Scan, Step, Stop, refused};

impl Recovery<'_> {
    pub(super) fn segment(&mut self, marker: u8) -> Step<Option<Next>> {
        match marker {
            0xd8 => return refused("a second start of image"),
            0xc0..=0xc2 => self.frame(marker)?,
            // Lossless and arithmetic coding.
            0xc3 | 0xc9..=0xcb if self.size.is_none() => return Err(Stop::Unknown),
            0xda => {
                self.scan_header()?;
                return Ok(Some(Next::Scan));
            }
            0xd9 => return Ok(Some(Next::End)),
            0xc4 => self.huffman_tables()?,
            0xdb => self.quantization_tables()?,
            0xcc => self.arithmetic_conditions()?,
            0xdd => {
                if self.word()? != 4 {
                    return refused("a restart interval of a wrong length");
                }
                self.interval = self.word()?;
            }
            0xe0..=0xef | 0xfe | 0xdc => self.skip_segment(marker)?,
            // A TEM in the header is refused by Pillow's own parser.
            0xd0..=0xd7 => {}
            0x01 if self.scans > 0 => {}
            _ => return refused("a marker that is not known"),
        }
        Ok(None)
    }

    /// Application data, comments, numbers of lines.
    fn skip_segment(&mut self, marker: u8) -> Step<()> {
        let length = self.word()?.saturating_sub(2);
        let is_kept = marker != 0xfe && marker != 0xdc && self.scans == 0;
        let body = self.at..(self.at + length).min(self.data.len());
        let read = if matches!(marker, 0xe0 | 0xee) { length.min(14) } else { 0 };
        for _ in 0..read {
            self.byte()?;
        }
        // It may go beyond the window.
        self.at += length - read;
        if is_kept {
            self.applications.extend([0xff, marker]);
            self.applications.extend(((length + 2) as u16).to_be_bytes());
            self.applications.extend_from_slice(&self.data[body]);
        }
        Ok(())
    }

    fn arithmetic_conditions(&mut self) -> Step<()> {
        let mut length = self.word()? as i64 - 2;
        while length > 0 {
            let (index, value) = (self.byte()?, self.byte()?);
            length -= 2;
            if index >= 32 || index < 16 && value & 15 > value >> 4 {
                return refused("invalid conditions of arithmetic coding");
            }
        }
        if length == 0 { Ok(()) } else { refused("conditions of arithmetic coding of a wrong length") }
    }

    fn frame(&mut self, marker: u8) -> Step<()> {
        if self.size.is_some() {
            return refused("a second frame");
        }
        let (length, bits) = (self.word()?, self.byte()?);
        let (height, width, count) = (self.word()?, self.word()?, usize::from(self.byte()?));
        if width == 0 || height == 0 || count == 0 || length != 8 + 3 * count || bits != 8 || count > 4 {
            return refused("an invalid frame header");
        }
        if width * height > MOST_PIXELS {
            return refused("it is too large to be decoded in this way");
        }
        let mut heads = Vec::new();
        for _ in 0..count {
            let (id, sampling, table) = (self.byte()?, self.byte()?, self.byte()?);
            let sampling = Extent { across: usize::from(sampling >> 4), down: usize::from(sampling & 15) };
            if !(1..=4).contains(&sampling.across) || !(1..=4).contains(&sampling.down) {
                return refused("invalid sampling factors");
            }
            heads.push(Head { id, sampling, table: usize::from(table) });
        }
        let most = |of: fn(&Head) -> usize| heads.iter().map(of).max().unwrap_or(1);
        let largest = Extent { across: most(|head| head.sampling.across), down: most(|head| head.sampling.down) };
        let divides = |head: &Head| {
            largest.across.is_multiple_of(head.sampling.across) && largest.down.is_multiple_of(head.sampling.down)
        };
        if !heads.iter().all(divides) {
            return refused("fractional sampling factors");
        }
        let pixels = Extent { across: width, down: height };
        let frame = Frame { pixels, largest };
        let component = |head: &Head| Component::new(head.id, head.sampling, head.table, frame);
        self.components = heads.iter().map(component).collect();
        self.is_progressive = marker == 0xc2;
        self.size = Some(pixels);
        Ok(())
    }

    fn scan_header(&mut self) -> Step<()> {
        if self.size.is_none() {
            return refused("a scan before the frame");
        }
        let (length, count) = (self.word()?, usize::from(self.byte()?));
        if length != 6 + 2 * count || !(1..=4).contains(&count) {
            return refused("a scan of a wrong length");
        }
        let mut scan = Scan::default();
        for index in 0..count {
            let (id, tables) = (self.byte()?, self.byte()?);
            // libjpeg searches the frame's components from the index on that the component has in the scan.
            let found = (index..self.components.len()).find(|place| self.components[*place].id == id);
            match found.filter(|place| !scan.components.contains(place)) {
                Some(place) => scan.components.push(place),
                None => return refused("a scan of a component that the frame lacks"),
            }
            scan.table_numbers.push((tables >> 4, tables & 15));
        }
        scan.band = (usize::from(self.byte()?), usize::from(self.byte()?));
        let bits = self.byte()?;
        scan.bits = (bits >> 4, bits & 15);
        self.scan = scan;
        self.restart_number = 0;
        self.scans += 1;
        if self.scans > MOST_SCANS { refused("it has more scans than any picture") } else { Ok(()) }
    }

    fn huffman_tables(&mut self) -> Step<()> {
        let mut length = self.word()? as i64 - 2;
        while length > 16 {
            let index = self.byte()?;
            let mut counts = [0; 16];
            for count in &mut counts {
                *count = self.byte()?;
            }
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            length -= 17;
            if total > 256 || total as i64 > length {
                return refused(super::WRONG_TABLE);
            }
            let mut symbols = vec![0; 256];
            for symbol in &mut symbols[..total] {
                *symbol = self.byte()?;
            }
            length -= total as i64;
            let (class, number) = (usize::from(index >> 4 & 1), usize::from(index & !16));
            if number >= 4 {
                return refused("a Huffman table with an invalid number");
            }
            self.tables[class][number] = Some((counts, symbols));
        }
        if length == 0 { Ok(()) } else { refused("Huffman tables of a wrong length") }
    }

    fn quantization_tables(&mut self) -> Step<()> {
        let mut length = self.word()? as i64 - 2;
        while length > 0 {
            let index = self.byte()?;
            let (is_wide, number) = (index >> 4 != 0, usize::from(index & 15));
            if number >= 4 {
                return refused("a quantization table with an invalid number");
            }
            for place in &ZIGZAG[..64] {
                // Value by value: a table that is cut off replaces only the beginning of the old one.
                let value = if is_wide { self.word()? as u16 } else { u16::from(self.byte()?) };
                self.quantization[number].get_or_insert([0; 64])[*place] = value;
            }
            length -= if is_wide { 129 } else { 65 };
        }
        if length == 0 { Ok(()) } else { refused("quantization tables of a wrong length") }
    }
}
