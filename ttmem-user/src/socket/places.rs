//! How many clients there may be, and how much of them at a time: no user can take what is there
//! for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

/// Clients of one ttmem at a time, of all users but root; and as many of root.
pub const MAX_CLIENTS: usize = 1000;
/// Clients of one user other than root.
pub const MAX_OF_USER: usize = 500;

/// Answers with snapshots in them that are made for one user at a time, or wait to be taken by its
/// clients: each may be of any size.
pub const LARGE_OF_USER: usize = 4;

const ROOT: u32 = 0;

/// How many there are, by user.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<u32, Taken>>);

/// What one user has.
#[derive(Debug)]
struct Taken {
    places: usize,
    large: Arc<Semaphore>,
}

impl Default for Taken {
    fn default() -> Self {
        Self { places: 0, large: Arc::new(Semaphore::new(LARGE_OF_USER)) }
    }
}

/// One that is taken, until it is dropped.
#[derive(Debug)]
pub struct Place {
    of: Arc<Places>,
    user: u32,
    large: Arc<Semaphore>,
}

impl Places {
    /// Takes one for a user; if there is none left, says why.
    pub fn take(self: &Arc<Self>, user: u32) -> Result<Place, String> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&user).map_or(0, |taken| taken.places);
        if user == ROOT {
            if own >= MAX_CLIENTS {
                return Err(format!("{MAX_CLIENTS} clients of root are served already"));
            }
        } else if own >= MAX_OF_USER {
            return Err(format!("{MAX_OF_USER} clients of user {user} are served already"));
        } else if of_users(&taken) >= MAX_CLIENTS {
            return Err(format!("{MAX_CLIENTS} clients are served already"));
        }
        let own = taken.entry(user).or_default();
        own.places += 1;
        Ok(Place { of: Arc::clone(self), user, large: Arc::clone(&own.large) })
    }
}

fn of_users(taken: &HashMap<u32, Taken>) -> usize {
    taken.iter().filter(|(user, _)| **user != ROOT).map(|(_, taken)| taken.places).sum()
}

impl Place {
    /// Whose it is.
    pub const fn user(&self) -> u32 {
        self.user
    }

    /// Waits until it is this one's turn to have a large answer, for as long as the permit is kept.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.large.acquire().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.user) {
            own.places -= 1;
            if own.places == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all that a user can get.
    fn take_all(places: &Arc<Places>, user: u32) -> (Vec<Place>, String) {
        let mut own = Vec::new();
        loop {
            match places.take(user) {
                Ok(place) => own.push(place),
                Err(why) => return (own, why),
            }
        }
    }

    #[test]
    fn one_user_cannot_take_the_places_of_others() {
        let places = Arc::<Places>::default();
        let (mut first, why) = take_all(&places, 1);
        assert_eq!((first.len(), &*why), (500, "500 clients of user 1 are served already"));
        let (second, _) = take_all(&places, 2);
        assert_eq!(second.len(), 500);
        let (third, why) = take_all(&places, 3);
        assert_eq!((third.len(), &*why), (0, "1000 clients are served already"));
        let (root, why) = take_all(&places, ROOT);
        assert_eq!((root.len(), &*why), (1000, "1000 clients of root are served already"));
        first.pop();
        assert!(places.take(3).is_ok(), "a place that has become free is anybody's");
        drop((first, second, root));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
