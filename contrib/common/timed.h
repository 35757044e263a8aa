/*
 * Condition variables that wait by CLOCK_MONOTONIC: who sets the clock neither ends nor prolongs a wait. Owns nothing.
 */
#ifndef SBX_TIMED_H
#define SBX_TIMED_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* 0 or a negative errno. */
static inline int timed_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int err = pthread_condattr_init(&attr);

	if (err)
		return -err;
	err = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (!err)
		err = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return -err;
}

/* One wait, as of pthread_cond_timedwait: 0 (look again) or -ETIMEDOUT. deadline_ms: by CLOCK_MONOTONIC; <0: none. */
static inline int timed_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ms)
{
	struct timespec until = {deadline_ms / 1000, deadline_ms % 1000 * 1000000};

	if (deadline_ms < 0)
		return -pthread_cond_wait(cond, lock);
	return -pthread_cond_timedwait(cond, lock, &until);
}

#endif
