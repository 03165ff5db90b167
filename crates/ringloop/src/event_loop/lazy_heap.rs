//! A priority queue that sorts no more than it has to. Timers wait in it.
//!
//! # Life of an item
//!
//! The items with the least keys are in a heap that fits into the cache. All others are in layers behind it. Inside a layer
//! there is no order, but all items of one layer go before those of the layers further out. A new item is appended to the
//! layer that its key belongs to, which costs next to nothing. When the heap is empty, the nearest layer is halved until the
//! part that goes first fits into the heap. So an item that is removed early is never sorted, and a million items do not
//! cost the cache misses that they cost in one large heap.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Gives the item with the least key first. No two keys are equal.
pub(super) struct LazyHeap<K, V> {
    first: BinaryHeap<Item<K, V>>,
    /// The nearest is the last one; none is empty.
    layers: Vec<Layer<K, V>>,
    len: usize,
}

impl<K: Ord + Copy, V> LazyHeap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, key: K, value: V) {
        self.len += 1;
        // From the outside: most timers are set to go off after those that wait.
        if let Some(layer) = self.layers.iter_mut().find(|layer| key >= layer.least) {
            layer.items.push(Item { key, value });
            return;
        }
        self.first.push(Item { key, value });
        if self.first.len() > MOST_IN_HEAP {
            let items = std::mem::take(&mut self.first).into_vec();
            self.fill(items);
        }
    }

    /// The item that goes first.
    pub(super) fn peek(&mut self) -> Option<(K, &V)> {
        if self.first.is_empty() {
            let nearest = self.layers.pop()?;
            self.fill(nearest.items);
        }
        self.first.peek().map(|item| (item.key, &item.value))
    }

    pub(super) fn pop(&mut self) -> Option<V> {
        self.peek()?;
        self.len -= 1;
        self.first.pop().map(|item| item.value)
    }

    /// Drops the items that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.first.retain(|item| keep(&item.value));
        for layer in &mut self.layers {
            layer.items.retain(|item| keep(&item.value));
        }
        self.layers.retain(|layer| !layer.items.is_empty());
        let in_layers: usize = self.layers.iter().map(|layer| layer.items.len()).sum();
        self.len = self.first.len() + in_layers;
    }

    /// Takes all items out, in no order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = V> + use<K, V> {
        let Self { first, layers, .. } = std::mem::take(self);
        let items = first.into_iter().chain(layers.into_iter().flat_map(|layer| layer.items));
        items.map(|item| item.value)
    }

    /// Fills the heap, which is empty, with those of the items that go first; the others become layers.
    fn fill(&mut self, mut items: Vec<Item<K, V>>) {
        while items.len() > MOST_IN_HEAP / 2 {
            let half = items.len() / 2;
            let (_, middle, _) = items.select_nth_unstable(half);
            let least = middle.key;
            let sooner = items.split_off(half + 1);
            self.layers.push(Layer { least, items });
            items = sooner;
        }
        self.first = items.into();
    }
}

impl<K: Ord, V> Default for LazyHeap<K, V> {
    fn default() -> Self {
        Self { first: BinaryHeap::new(), layers: Vec::new(), len: 0 }
    }
}

struct Layer<K, V> {
    /// No key in here is less, and none in nearer layers is as great.
    least: K,
    items: Vec<Item<K, V>>,
}

struct Item<K, V> {
    key: K,
    value: V,
}

/// The greatest is the one that goes first, as `BinaryHeap` has it.
impl<K: Ord, V> Ord for Item<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl<K: Ord, V> PartialOrd for Item<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, V> PartialEq for Item<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: Ord, V> Eq for Item<K, V> {}

/// What stays in the second-level cache.
const MOST_IN_HEAP: usize = 2048;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Against a map: pushes, pops and purges in turns, growing and shrinking over several layers.
    #[test]
    fn items_come_in_the_order_of_their_keys() {
        let mut heap = LazyHeap::default();
        let mut model = BTreeMap::new();
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33
        };
        let mut most_layers = 0;
        for round in 0..60_u64 {
            for _ in 0..next() % 8000 {
                // Few deadlines and many ties, as of timers that were set in the same moment.
                let key = (next() % 500, model.len() as u64 + round * 1_000_000);
                if model.insert(key, key).is_none() {
                    heap.push(key, key);
                }
            }
            if round % 10 == 9 {
                heap.retain(|&(deadline, _)| deadline % 3 > 0);
                model.retain(|&(deadline, _), _| deadline % 3 > 0);
            }
            for _ in 0..next() % 8000 {
                assert_eq!(heap.pop(), model.pop_first().map(|(_, value)| value));
            }
            assert_eq!(heap.len(), model.len());
            most_layers = most_layers.max(heap.layers.len());
        }
        assert!(most_layers > 3);
        let mut rest: Vec<_> = heap.take().collect();
        rest.sort_unstable();
        assert!(rest.into_iter().eq(model.into_keys()));
        assert_eq!(heap.pop(), None);
    }
}
