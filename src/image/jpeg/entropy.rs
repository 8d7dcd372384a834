//! Decodes entropy-coded data, sequential and progressive. After damage it goes on as libjpeg does.

use std::rc::Rc;

use super::coefficients::ZIGZAG;
use super::huffman::Table;
use super::recover::{Recovery, Step, Stop};

/// A block of an MCU: its component's place in the scan and in the frame, and its number.
type Place = (usize, usize, usize);

/// Bits that the buffer is filled up to (`MIN_GET_BITS` of libjpeg with 64 bits).
const FILLED: u32 = 57;
/// Most bytes that a block can take. Where this many are left for each block, libjpeg decodes without bounds checks.
const LARGEST_BLOCK: usize = 512;

/// The number that `size` bits stand for (`HUFF_EXTEND`).
fn extend(bits: u32, size: u32) -> i32 {
    let bits = bits as i32;
    if bits >= 1 << (size - 1) { bits } else { bits - (1 << size) + 1 }
}

impl Recovery<'_> {
    pub(super) fn decode_mcu(&mut self, mcu: &[Place]) -> Step<()> {
        match (self.is_progressive, self.scan.band.0, self.scan.bits.0) {
            (false, ..) => self.sequential(mcu),
            (true, 0, 0) => self.first_of_dc(mcu),
            (true, 0, _) => self.more_of_dc(mcu),
            (true, _, 0) => self.first_of_ac(mcu[0]),
            (true, ..) => self.more_of_ac(mcu[0]),
        }
    }

    /// `jpeg_fill_bit_buffer`: after the end of the data it gives zeros.
    fn fill(&mut self, wanted: u32) -> Step<()> {
        while self.unread == 0 && self.left < FILLED {
            let mut byte = self.byte()?;
            if byte == 0xff {
                // Any number of bytes of 255 before a zero count as one.
                while byte == 0xff {
                    byte = self.byte()?;
                }
                if byte != 0 {
                    self.unread = byte;
                    break;
                }
                byte = 0xff;
            }
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.left += 8;
        }
        if self.unread != 0 && wanted > self.left {
            (self.insufficient, self.damaged) = (true, true);
            self.buffer <<= FILLED - self.left;
            self.left = FILLED;
        }
        Ok(())
    }

    fn take(&mut self, count: u32) -> u32 {
        self.left -= count;
        (self.buffer >> self.left) as u32 & ((1 << count) - 1)
    }

    fn get(&mut self, count: u32) -> Step<u32> {
        if self.left < count {
            self.fill(count)?;
        }
        Ok(self.take(count))
    }

    fn peek_byte(&self) -> u8 {
        (self.buffer >> (self.left - 8)) as u8
    }

    /// `HUFF_DECODE` and `jpeg_huff_decode`: an invalid code uses up seventeen bits, and its symbol is 0.
    fn decode(&mut self, table: &Table) -> Step<u8> {
        if self.left < 8 {
            self.fill(0)?;
        }
        let mut length = 1;
        if self.left >= 8 {
            if let Some((bits, symbol)) = table.short(self.peek_byte()) {
                self.left -= bits;
                return Ok(symbol);
            }
            length = 9;
        }
        let mut code = self.get(length)?;
        while table.goes_on(code, length as usize) {
            code = code << 1 | self.get(1)?;
            length += 1;
        }
        self.damaged |= length > 16;
        Ok(table.symbol(code, length as usize))
    }

    /// Fills the buffer as libjpeg does where enough bytes are left. A marker gives zeros, and the MCU is decoded once more.
    fn fast_fill(&mut self) {
        if self.left > 16 {
            return;
        }
        for _ in 0..6 {
            let byte_at = |at: usize| self.data.get(at).copied().unwrap_or(0);
            let mut byte = byte_at(self.at);
            self.at += 1;
            if byte == 0xff {
                let next = byte_at(self.at);
                self.at += 1;
                if next != 0 {
                    self.unread = next;
                    self.at -= 2;
                    byte = 0;
                }
            }
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.left += 8;
        }
    }

    fn fast_get(&mut self, count: u32) -> u32 {
        self.fast_fill();
        self.take(count)
    }

    fn fast_decode(&mut self, table: &Table) -> u8 {
        self.fast_fill();
        if let Some((bits, symbol)) = table.short(self.peek_byte()) {
            self.left -= bits;
            return symbol;
        }
        let (mut length, mut code) = (9, self.take(9));
        while table.goes_on(code, length) {
            code = code << 1 | self.take(1);
            length += 1;
        }
        self.damaged |= length > 16;
        table.symbol(code, length)
    }

    fn sequential(&mut self, mcu: &[Place]) -> Step<()> {
        // The data has ended: blocks stay as they are.
        if self.insufficient {
            return Ok(());
        }
        let enough = self.end.saturating_sub(self.at) >= LARGEST_BLOCK * mcu.len();
        if self.interval == 0 && self.unread == 0 && enough {
            let state = (self.at, self.buffer, self.left);
            let decoded =
                self.blocks(mcu, |this, table| Ok(this.fast_decode(table)), |this, count| Ok(this.fast_get(count)))?;
            if self.unread == 0 {
                self.last_dc = decoded;
                return Ok(());
            }
            // Once more, over what the failed try has left in the blocks.
            self.unread = 0;
            (self.at, self.buffer, self.left) = state;
        }
        self.last_dc = self.blocks(mcu, Self::decode, Self::get)?;
        Ok(())
    }

    /// The blocks of an MCU; returns the DC values that the next ones build on.
    fn blocks(
        &mut self,
        mcu: &[Place],
        decode: impl Fn(&mut Self, &Table) -> Step<u8>,
        get: impl Fn(&mut Self, u32) -> Step<u32>,
    ) -> Step<[i32; 4]> {
        let tables = Rc::clone(&self.scan.tables);
        let mut last = self.last_dc;
        for &(at, place, block) in mcu {
            let (Some(dc), Some(ac)) = &tables[at] else { return Err(Stop::Unknown) };
            let size = u32::from(decode(self, dc)?);
            let difference = if size > 0 { extend(get(self, size)?, size) } else { 0 };
            last[at] = last[at].wrapping_add(difference);
            self.components[place].blocks[block][0] = last[at] as i16;
            let mut k = 1;
            while k < 64 {
                let symbol = decode(self, ac)?;
                let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                if size > 0 {
                    k += run;
                    let value = extend(get(self, size)?, size);
                    self.components[place].blocks[block][ZIGZAG[k]] = value as i16;
                } else if run == 15 {
                    k += 15;
                } else {
                    // Any other symbol of size zero ends the block.
                    break;
                }
                k += 1;
            }
        }
        Ok(last)
    }

    fn first_of_dc(&mut self, mcu: &[Place]) -> Step<()> {
        if self.insufficient {
            return Ok(());
        }
        let tables = Rc::clone(&self.scan.tables);
        let (mut last, low) = (self.last_dc, self.scan.bits.1);
        for &(at, place, block) in mcu {
            let Some(dc) = &tables[at].0 else { return Err(Stop::Unknown) };
            let size = u32::from(self.decode(dc)?);
            let difference = if size > 0 { extend(self.get(size)?, size) } else { 0 };
            last[at] = last[at].wrapping_add(difference);
            self.components[place].blocks[block][0] = last[at].wrapping_shl(low.into()) as i16;
        }
        self.last_dc = last;
        Ok(())
    }

    /// Reads on behind the data's end, too: zeros change nothing.
    fn more_of_dc(&mut self, mcu: &[Place]) -> Step<()> {
        for &(_, place, block) in mcu {
            if self.get(1)? == 1 {
                self.components[place].blocks[block][0] |= 1 << self.scan.bits.1;
            }
        }
        Ok(())
    }

    fn first_of_ac(&mut self, (at, place, block): Place) -> Step<()> {
        if self.insufficient {
            return Ok(());
        }
        if self.end_of_band_run > 0 {
            self.end_of_band_run -= 1;
            return Ok(());
        }
        let tables = Rc::clone(&self.scan.tables);
        let Some(ac) = &tables[at].1 else { return Err(Stop::Unknown) };
        let ((first, last), low) = (self.scan.band, self.scan.bits.1);
        let (mut k, mut blocks) = (first, 0);
        while k <= last {
            let symbol = self.decode(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                let value = extend(self.get(size)?, size).wrapping_shl(low.into());
                self.components[place].blocks[block][ZIGZAG[k]] = value as i16;
            } else if run == 15 {
                k += 15;
            } else {
                blocks = (1 << run) + if run > 0 { self.get(run as u32)? } else { 0 } - 1;
                break;
            }
            k += 1;
        }
        self.end_of_band_run = blocks;
        Ok(())
    }

    fn more_of_ac(&mut self, place: Place) -> Step<()> {
        if self.insufficient {
            return Ok(());
        }
        let mut made = Vec::new();
        let refined = self.refine(place, &mut made);
        if matches!(refined, Err(Stop::Suspend)) {
            made.iter().for_each(|at| self.components[place.1].blocks[place.2][*at] = 0);
        }
        self.end_of_band_run = refined?;
        Ok(())
    }

    /// Reads one more bit of known coefficients, and new coefficients between them, whose places it adds to `made`. Returns how many of
    /// the next blocks have no new coefficients.
    fn refine(&mut self, (at, place, block): Place, made: &mut Vec<usize>) -> Step<u32> {
        let tables = Rc::clone(&self.scan.tables);
        let Some(ac) = &tables[at].1 else { return Err(Stop::Unknown) };
        let ((first, last), one) = (self.scan.band, 1i16 << self.scan.bits.1);
        let (mut k, mut blocks) = (first, self.end_of_band_run);
        if blocks == 0 {
            while k <= last {
                let symbol = self.decode(ac)?;
                let (mut run, size) = (i32::from(symbol >> 4), symbol & 15);
                let mut value = 0;
                if size > 0 {
                    // One bit for the sign, whatever the size.
                    value = if self.get(1)? == 1 { one } else { -one };
                } else if run != 15 {
                    blocks = (1 << run) + if run > 0 { self.get(run as u32)? } else { 0 };
                    break;
                }
                loop {
                    if self.components[place].blocks[block][ZIGZAG[k]] != 0 {
                        self.correct((place, block, ZIGZAG[k]), one)?;
                    } else {
                        run -= 1;
                        if run < 0 {
                            break;
                        }
                    }
                    k += 1;
                    if k > last {
                        break;
                    }
                }
                if value != 0 {
                    // It may lie one beyond the last.
                    self.components[place].blocks[block][ZIGZAG[k]] = value;
                    made.push(ZIGZAG[k]);
                }
                k += 1;
            }
        }
        if blocks > 0 {
            while k <= last {
                if self.components[place].blocks[block][ZIGZAG[k]] != 0 {
                    self.correct((place, block, ZIGZAG[k]), one)?;
                }
                k += 1;
            }
            blocks -= 1;
        }
        Ok(blocks)
    }

    /// One more bit of a coefficient that is not zero.
    fn correct(&mut self, (place, block, at): Place, one: i16) -> Step<()> {
        if self.get(1)? == 1 {
            let value = &mut self.components[place].blocks[block][at];
            if *value & one == 0 {
                *value = value.wrapping_add(if *value >= 0 { one } else { -one });
            }
        }
        Ok(())
    }
}
