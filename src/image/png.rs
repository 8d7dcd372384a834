//! PNG files that PIL reads and the decoder refuses: wrong checksums of the pixels' chunks, and files that end behind them.

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The chunks that are kept: no other one changes the pixels or the orientation.
const KEPT: [&[u8; 4]; 5] = [b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"iTXt"];

/// A file's last Exif chunk, which may lie after the pixels.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(SIGNATURE)?;
    let mut found = None;
    while let Some((length, kind, body)) = head(rest)
        && let Some((data, behind)) = body.split_at_checked(length)
    {
        if kind == *b"eXIf" {
            found = Some(data);
        }
        rest = behind.get(4..).unwrap_or_default();
    }
    found
}

/// A decoder's error in plain words, where it shows its own types.
pub(super) fn plain(error: String) -> String {
    match error.split_once("ChunkType { type: ").and_then(|(_, rest)| rest.split_once(',')) {
        Some((kind, _)) if error.contains("CRC error") => format!("the checksum of its {kind} chunk is wrong"),
        Some((kind, _)) => format!("its {kind} chunk is damaged"),
        None => error,
    }
}

/// A sound file with the pixels that PIL gives; none where PIL refuses. (Pillow, `PngImagePlugin.py`: chunks before the pixels need
/// their checksums, those of the pixels do not, and nothing has to follow.)
pub(super) fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.strip_prefix(SIGNATURE)?;
    let mut out = SIGNATURE.to_vec();
    let mut seen: Vec<[u8; 4]> = Vec::new();
    let mut first = loop {
        let (length, kind, body) = head(rest)?;
        if kind == *b"IDAT" {
            break (length, body);
        }
        let (data, behind) = body.split_at_checked(length)?;
        let (sum, behind) = behind.split_first_chunk()?;
        if kind == *b"IEND" || checksum(&kind, data) != u32::from_be_bytes(*sum) {
            return None;
        }
        if KEPT.contains(&&kind) && !seen.contains(&kind) {
            chunk(&mut out, &kind, data);
            seen.push(kind);
        }
        rest = behind;
    };
    // The last one may be cut off.
    let mut pixels = Vec::new();
    loop {
        let (length, body) = first;
        pixels.extend_from_slice(&body[..length.min(body.len())]);
        match body.get(length.saturating_add(4)..).and_then(head) {
            Some((length, kind, body)) if kind == *b"IDAT" => first = (length, body),
            _ => break,
        }
    }
    chunk(&mut out, b"IDAT", &pixels);
    chunk(&mut out, b"IEND", &[]);
    Some(out)
}

/// A chunk's length and kind, and what follows.
fn head(bytes: &[u8]) -> Option<(usize, [u8; 4], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let is_name = kind.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_name.then_some((u32::from_be_bytes(*length) as usize, *kind, rest))
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    out.extend(checksum(kind, data).to_be_bytes());
}

/// A chunk's checksum, over its kind and its data.
fn checksum(kind: &[u8; 4], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind);
    hasher.update(data);
    hasher.finalize()
}
