/* What ctl_fakes_ops.c and ctl_fakes_runs.c share. For no one else. */
#ifndef CTL_FAKES_IMPL_H
#define CTL_FAKES_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

/* One wait, in which a test gives up: 10 s. False: it has. With the lock held. */
static inline bool fake_wait(pthread_cond_t *changed, pthread_mutex_t *lock)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	return pthread_cond_timedwait(changed, lock, &until) == 0;
}

#endif
