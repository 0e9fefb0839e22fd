//! What becomes of deadlines when the clock is set.

use tidegate_model::Timestamp;

use super::{Delivery, Timer};

impl Delivery {
    /// The clock was set ahead by `ms` without so much time having gone by: what was given for a while
    /// goes on as long. Parked messages are due at an instant, which stands in the log: they stay.
    pub(crate) fn set_ahead(&mut self, ms: i64) {
        let later = |at: &mut Timestamp| *at = at.plus_ms(ms);
        let desk = &mut self.desk;
        desk.timers = std::mem::take(&mut desk.timers)
            .into_iter()
            .map(|(mut at, timer)| {
                if !matches!(timer, Timer::Due(..)) {
                    later(&mut at);
                }
                (at, timer)
            })
            .collect();
        for taker in desk.members.values_mut() {
            if let Some(wait) = &mut taker.wait {
                later(&mut wait.until);
            }
        }
        for active in self.active.values_mut() {
            later(&mut active.touched);
            later(&mut active.idle_at);
            for lane in &mut active.lanes {
                lane.retry.as_mut().map(later);
                lane.passed_timer.as_mut().map(later);
                for lease in lane.leases.values_mut() {
                    later(&mut lease.deadline);
                }
            }
        }
    }
}
