//! Where a key goes: murmur2 as Kafka's Java client computes it, so that a key has the same
//! partition whoever publishes it.
//!
//! Source: `org.apache.kafka.common.utils.Utils.murmur2`, Apache Kafka.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

fn murmur2(data: &[u8]) -> u32 {
    // Kafka's arithmetic is 32 bits wide and wraps.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` among `partitions`, as Kafka's default partitioner for keyed records.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// The slot of a topic's key among `slots`: both count, so that topics spread too.
pub fn slot_of(topic: &str, key: &[u8], slots: u32) -> u32 {
    let topic = murmur2(topic.as_bytes());
    (murmur2(key).wrapping_add(topic.rotate_left(7)) & 0x7fff_ffff) % slots.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn agrees_with_kafka() {
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, expected) in known {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn stays_in_range() {
        for n in 0..100u32 {
            assert!(partition_of(&n.to_le_bytes(), 12) < 12);
            assert!(slot_of("order", &n.to_le_bytes(), 16) < 16);
            assert_eq!(partition_of(&n.to_le_bytes(), 0), 0);
        }
    }
}
