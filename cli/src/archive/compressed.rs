//! Reading archives whatever they are compressed with.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// Reading ahead enough to see what a stream is.
const BUFFER_BYTES: usize = 256 * 1024;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: &[u8] = b"BZh";

/// The plain bytes of a stream that may be compressed with gzip or zstd.
pub(crate) fn decompress<R: Read + Send + 'static>(input: R) -> io::Result<Box<dyn Read + Send>> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let head = input.fill_buf()?;
    if head.starts_with(GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(input)));
    }
    if head.starts_with(ZSTD) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(input)?));
    }
    for (magic, name) in [(XZ, "xz"), (BZIP2, "bzip2")] {
        if head.starts_with(magic) {
            let text = format!(
                "it is compressed with {name}, which is not supported: decompress it first ({name} -d)"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    }
    Ok(Box::new(input))
}

/// Whether the bytes begin a compressed stream.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    [GZIP, ZSTD, XZ, BZIP2]
        .iter()
        .any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn every_form_gives_the_same_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"plain").unwrap();
        let zstd = zstd::encode_all(&b"plain"[..], 1).unwrap();
        for form in [b"plain".to_vec(), gzip.finish().unwrap(), zstd] {
            let mut out = String::new();
            decompress(io::Cursor::new(form))
                .unwrap()
                .read_to_string(&mut out)
                .unwrap();
            assert_eq!(out, "plain");
        }
        let error = decompress(io::Cursor::new(b"BZh91AY")).err().unwrap();
        assert!(error.to_string().contains("bzip2 -d"), "{error}");
    }
}
