use super::*;

fn read_all(archive: &[u8]) -> io::Result<Vec<(Member, Vec<u8>)>> {
    let mut reader = Reader::new(archive);
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data)?;
        members.push((member, data));
    }
    Ok(members)
}

/// What GNU tar writes with these arguments in a directory that `fill` made.
fn gnu_tar(arguments: &[&str], fill: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let output = std::process::Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .args(["--sort=name", "-cf", "-"])
        .args(arguments)
        .arg(".")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn sparse_file(root: &std::path::Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(root.join("sparse")).unwrap();
    for piece in 0..30u64 {
        file.write_all_at(&[b'a' + piece as u8; 4096], piece * 65536)
            .unwrap();
    }
    file.set_len(3 << 20).unwrap();
    std::fs::write(root.join("tail"), "after").unwrap();
}

#[test]
fn long_names_are_read_in_every_dialect() {
    let name = format!("{}/{}", "d".repeat(90), "f".repeat(150));
    for format in ["--format=gnu", "--format=pax"] {
        let archive = gnu_tar(&[format], |root| {
            std::fs::create_dir(root.join("d".repeat(90))).unwrap();
            std::fs::write(root.join(&name), "x").unwrap();
            std::os::unix::fs::symlink("t".repeat(200), root.join("link")).unwrap();
        });
        let members = read_all(&archive).unwrap();
        let file = members
            .iter()
            .find(|(member, _)| matches!(member.kind, MemberKind::File(_)))
            .unwrap();
        assert_eq!(file.0.path, format!("./{name}").into_bytes(), "{format}");
        let link = members
            .iter()
            .find(|(member, _)| matches!(member.kind, MemberKind::Symlink(_)))
            .unwrap();
        assert_eq!(
            link.0.kind,
            MemberKind::Symlink("t".repeat(200).into_bytes()),
            "{format}"
        );
    }
}

#[test]
fn sparse_files_are_read_in_every_dialect() {
    for arguments in [
        &["--format=gnu", "-S"][..],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=1.0"],
    ] {
        let members = read_all(&gnu_tar(arguments, sparse_file)).unwrap();
        let (member, data) = members
            .iter()
            .find(|(member, _)| member.path == b"./sparse")
            .unwrap();
        let MemberKind::File(content) = &member.kind else {
            panic!("{member:?}")
        };
        assert_eq!(content.size, 3 << 20, "{arguments:?}");
        let extents = content.extents.as_ref().unwrap();
        let mut whole = vec![0; content.size as usize];
        let mut at = 0;
        for (offset, length) in extents {
            let (offset, length) = (*offset as usize, *length as usize);
            whole[offset..offset + length].copy_from_slice(&data[at..at + length]);
            at += length;
        }
        for piece in 0..30 {
            assert_eq!(
                whole[piece * 65536 + 4095],
                b'a' + piece as u8,
                "{arguments:?} {piece}"
            );
        }
        let (_, tail) = members
            .iter()
            .find(|(member, _)| member.path == b"./tail")
            .unwrap();
        assert_eq!(tail, b"after");
    }
}

#[test]
fn attributes_with_any_bytes_are_read() {
    let body = b"33 SCHILY.xattr.security.x=a\n=\0b\n19 mtime=1.5000000\n13 uid=70000\n";
    let records = parse_pax(body).unwrap();
    assert_eq!(
        records[0],
        ("SCHILY.xattr.security.x".to_owned(), b"a\n=\0b".to_vec())
    );
    assert_eq!(pax_time(&records[1].1).unwrap(), 1_500_000_000);
    assert_eq!(pax_time(b"-1.25").unwrap(), -1_250_000_000);
}

#[test]
fn what_is_cut_off_or_changed_is_an_error() {
    let archive = gnu_tar(&["--format=gnu"], |root| {
        std::fs::write(root.join("a"), [7; 5000]).unwrap();
    });
    assert_eq!(read_all(&archive).unwrap().len(), 2);
    for cut in [100, 700, 1536, 3000] {
        assert!(read_all(&archive[..cut]).is_err(), "{cut}");
    }
    let mut changed = archive;
    changed[0] ^= 1;
    assert!(read_all(&changed).unwrap_err().to_string().contains("checksum"));
}

#[test]
fn an_endless_name_is_refused() {
    let mut header = [0; BLOCK];
    header[156] = b'L';
    header[124..135].copy_from_slice(b"77777777777");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let endless = header
        .iter()
        .copied()
        .chain(std::iter::repeat(b'a'))
        .take(4 << 20)
        .collect::<Vec<u8>>();
    assert!(read_all(&endless).unwrap_err().to_string().contains("1 MiB"));
}

/// -1 says "unchanged" to the kernel, and its wrapper takes it for a mistake of ours.
#[test]
fn the_owner_that_is_none_is_refused() {
    for (id, is_read) in [(u32::MAX - 1, true), (u32::MAX, false)] {
        let mut header = tar::Header::new_gnu();
        header.set_path("file").unwrap();
        header.set_size(0);
        header.set_gid(id.into());
        header.set_cksum();
        assert_eq!(read_all(header.as_bytes()).is_ok(), is_read, "{id}");
    }
}

#[test]
fn numbers_that_can_not_be_are_refused() {
    let with_pax = |record: &str| {
        let mut header = [0; BLOCK];
        header[..1].copy_from_slice(b"a");
        header[124..135].copy_from_slice(format!("{:011o}", record.len()).as_bytes());
        header[156] = b'x';
        let seal = |header: &mut [u8; BLOCK]| {
            header[148..156].copy_from_slice(b"        ");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        };
        seal(&mut header);
        let mut archive = header.to_vec();
        archive.extend_from_slice(record.as_bytes());
        archive.resize(2 * BLOCK, 0);
        let mut file = [0; BLOCK];
        file[..1].copy_from_slice(b"a");
        file[156] = b'0';
        seal(&mut file);
        archive.extend_from_slice(&file);
        read_all(&archive)
    };
    assert_eq!(with_pax("13 uid=70000\n").unwrap()[0].0.uid, 70_000);
    for record in [
        "18 uid=4294967295\n",
        "18 gid=4294967296\n",
        "29 size=18446744073709551615\n",
        "10 uid=-1\n",
        "11 size=1x\n",
        "99 uid=1\n",
    ] {
        assert!(with_pax(record).is_err(), "{record}");
    }
}
