use super::*;

fn words(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(u64::MAX)).collect()
}

fn facts(version: u64) -> Facts {
    Facts { version, attributes: Attributes::default(), marked_stale: false, namespace: 0, ttl_octave: 0 }
}

fn read(view: View<'_>, namespace: u16, key: &[u8], version: u64) -> Read<(Facts, Bytes)> {
    match view.open(namespace, key, || version, || true) {
        Read::Mine(opened) => Read::Mine((opened.facts, opened.value().expect("no writer runs"))),
        Read::Another => Read::Another,
        Read::Again => Read::Again,
    }
}

#[test]
fn items_of_every_shape_round_trip() {
    for key_len in [1, 7, 8, 9, 16, 23, 1024] {
        for value_len in [0, 1, 6, 7, 8, 9, 128, 1000] {
            for shape in 0..16_u32 {
                let attributes = Attributes {
                    flags: if shape & 1 == 0 { 0 } else { 77 },
                    deadline_ms: if shape & 2 == 0 { 0 } else { 1 << 40 },
                    stale_at_ms: if shape & 4 == 0 { 0 } else { 5 },
                    negative: shape & 8 != 0,
                };
                let namespace = (shape % 3) as u16;
                let ttl_octave = if shape & 2 == 0 { 0 } else { 63 };
                let marked_stale = shape == 3;
                let facts = Facts { version: 1 << 30 | 9, attributes, marked_stale, namespace, ttl_octave };
                let key: Vec<u8> = (0..key_len).map(|i| i as u8).collect();
                let value: Vec<u8> = (0..value_len).map(|i| !(i as u8)).collect();
                let draft = Draft { key: &key, value: &value, facts, versioned: shape % 2 == 0 };
                let memory = words(draft.words());
                draft.write(&memory);
                let view = View::new(&memory);
                let read = read(view, namespace, &key, (1 << 30) + 100);
                assert_eq!(read, Read::Mine((facts, Bytes::from(value.clone()))), "{draft:?}");
                assert_eq!(view.header().payload_bytes(), key_len + value_len);
                let mut back = Vec::new();
                view.copy_key(view.header(), &mut back);
                assert_eq!(back, key);
            }
        }
    }
}

#[test]
fn keys_of_the_same_length_or_prefix_differ() {
    let draft = Draft { key: b"0123456789", value: b"v", facts: facts(1), versioned: false };
    let memory = words(draft.words());
    draft.write(&memory);
    let others = [(0, "0123456780"), (0, "01234567"), (1, "0123456789"), (0, "0123456789v")];
    let found = others.map(|(namespace, key)| (key, read(View::new(&memory), namespace, key.as_bytes(), 1)));
    assert_eq!(found, others.map(|(_, key)| (key, Read::Another)));
}

#[test]
fn an_item_overwritten_during_the_copy_is_read_again() {
    let old = Draft { key: b"key", value: b"old", facts: facts(1), versioned: false };
    let new = Draft { value: b"new", facts: facts(2), ..old };
    let memory = words(old.words());
    old.write(&memory);
    let view = View::new(&memory);
    assert!(new.fits_in_place(view.header()));
    let Read::Mine(opened) = view.open(0, b"key", || 2, || true) else { panic!("the item exists") };
    new.overwrite(&memory);
    assert_eq!(opened.value(), None);
    assert_eq!(read(view, 0, b"key", 2), Read::Mine((facts(2), Bytes::from("new"))));
}

#[test]
fn a_read_of_an_outdated_item_is_retried() {
    let draft = Draft { key: b"key", value: b"v", facts: facts(1), versioned: false };
    let memory = words(draft.words());
    draft.write(&memory);
    assert!(matches!(View::new(&memory).open(0, b"key", || 1, || false), Read::Again));
}

#[test]
fn a_shorter_value_leaves_a_dead_item_behind_it() {
    let old = Draft { key: b"key", value: &[1; 100], facts: facts(1), versioned: false };
    let new = Draft { value: &[2; 30], facts: facts(2), ..old };
    let memory = words(old.words());
    old.write(&memory);
    assert!(new.fits_in_place(View::new(&memory).header()));
    new.overwrite(&memory);
    assert_eq!(View::new(&memory).header().words(), new.words());
    assert_eq!(read(View::new(&memory), 0, b"key", 2), Read::Mine((facts(2), Bytes::from(vec![2; 30]))));
    let rest = View::new(&memory[new.words()..]).header();
    assert!(rest.is_dead());
    assert_eq!(new.words() + rest.words(), old.words());
    assert!(!old.fits_in_place(View::new(&memory).header()), "an item never grows again in place");
}

#[test]
fn a_version_is_never_equal_to_that_of_another_write() {
    let base = 1_u64 << 60;
    let header = Header(0).with_version(base + 5);
    assert_eq!(header.version(base + 5), base + 5);
    assert_eq!(header.version(base + 5 + VERSION_MASK), base + 5);
    // After 2^24 writes the version appears larger by 2^24, but it never equals the version of another write.
    assert_eq!(header.version(base + 6 + VERSION_MASK), base + 6 + VERSION_MASK);
}
