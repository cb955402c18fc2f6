//! Plans by the file they were made from: processes that map the same library share one.
//!
//! Nothing in a file says reliably which one it is: whoever has made it may have given it the build id
//! of another, and a plan put into a file that it was not made from breaks whoever runs that.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use super::{plan::AttachPlan, resolve};
use crate::image::Image;

/// How many plans are kept.
const MOST: usize = 256;

/// The plans made so far, by what names a file as it is.
#[derive(Debug)]
pub struct PlanCache<File> {
    plans: HashMap<File, Arc<AttachPlan>>,
}

impl<File> Default for PlanCache<File> {
    fn default() -> Self {
        Self { plans: HashMap::new() }
    }
}

impl<File: Eq + Hash> PlanCache<File> {
    /// The plan of an image, which is that of the file.
    pub fn plan(&mut self, file: File, image: &Image<'_>) -> Arc<AttachPlan> {
        if self.plans.len() >= MOST {
            self.plans.clear();
        }
        Arc::clone(self.plans.entry(file).or_insert_with(|| Arc::new(resolve(image))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::sample;

    #[test]
    fn a_file_is_resolved_once_whatever_it_says_it_is() {
        let code = sample::hex("c3");
        let mut image = Image::parse(sample::elf(&[("f", 0x1000, &code)])).unwrap();
        image.set_build_id(Some("a1"));
        let mut cache = PlanCache::default();
        let first = cache.plan(1, &image);
        assert!(Arc::ptr_eq(&first, &cache.plan(1, &image)));
        assert!(!Arc::ptr_eq(&first, &cache.plan(2, &image)), "the same build id");
        for file in 3..=MOST {
            cache.plan(file, &image);
        }
        assert!(Arc::ptr_eq(&first, &cache.plan(1, &image)) || cache.plans.len() < MOST);
        cache.plan(MOST + 1, &image);
        assert!(cache.plans.len() <= MOST);
    }
}
