//! Plans by the image they were made from: processes that map the same library share one.

use std::{collections::HashMap, sync::Arc};

use super::{plan::AttachPlan, resolve};
use crate::image::Image;

/// What an image is known by. A stripped copy has the build id of the original, but shows less.
type Key = (String, usize);

/// The plans made so far.
#[derive(Debug, Default)]
pub struct PlanCache {
    plans: HashMap<Key, Arc<AttachPlan>>,
}

impl PlanCache {
    /// The plan of an image. One without a build id is resolved each time.
    pub fn plan(&mut self, image: &Image<'_>) -> Arc<AttachPlan> {
        let make = || Arc::new(resolve(image));
        match image.build_id() {
            Some(build_id) => {
                let key = (build_id.to_owned(), image.symbol_count());
                Arc::clone(self.plans.entry(key).or_insert_with(make))
            }
            None => make(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::sample;

    fn image(functions: &[&str], build_id: Option<&str>) -> Image<'static> {
        let code = sample::hex("c3");
        let pieces: Vec<sample::Piece<'_>> = (1_u64..)
            .zip(functions)
            .map(|(number, name)| (*name, number * 0x1000, &*code))
            .collect();
        let mut image = Image::parse(sample::elf(&pieces)).unwrap();
        image.set_build_id(build_id);
        image
    }

    #[test]
    fn the_same_image_is_resolved_once() {
        let mut cache = PlanCache::default();
        let first = cache.plan(&image(&["f", "g"], Some("a1")));
        assert!(Arc::ptr_eq(&first, &cache.plan(&image(&["f", "g"], Some("a1")))));
        assert!(!Arc::ptr_eq(&first, &cache.plan(&image(&["f", "g"], Some("b2")))));
    }

    #[test]
    fn a_stripped_copy_is_another_image() {
        let mut cache = PlanCache::default();
        let whole = cache.plan(&image(&["f", "g"], Some("a1")));
        assert!(!Arc::ptr_eq(&whole, &cache.plan(&image(&["f"], Some("a1")))));
    }

    #[test]
    fn without_a_build_id_nothing_is_shared() {
        let mut cache = PlanCache::default();
        let first = cache.plan(&image(&["f"], None));
        assert!(!Arc::ptr_eq(&first, &cache.plan(&image(&["f"], None))));
    }
}
