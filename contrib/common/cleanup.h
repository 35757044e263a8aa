/*
 * Scope-bound ownership: AUTO_FREE, AUTO_FD, AUTO_UNLOCK and steal().
 *
 * A variable marked AUTO_… is initialised where it is declared and released
 * when its scope ends; steal() hands it on and leaves the empty value behind,
 * so that error paths are plain returns.
 */
#ifndef SBX_CLEANUP_H
#define SBX_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_unlock(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *cleanup_lock(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

static inline int steal_fd(int *fd)
{
	int f = *fd;
	*fd = -1;
	return f;
}

#define AUTO_FREE __attribute__((cleanup(cleanup_free)))
#define AUTO_FD __attribute__((cleanup(cleanup_fd)))
/* Holds the mutex m until the end of the enclosing scope. */
#define AUTO_UNLOCK(m)                                                                             \
	pthread_mutex_t *scope_lock_ __attribute__((cleanup(cleanup_unlock), unused)) = cleanup_lock(m)
#define steal(p)                                                                                   \
	__extension__({                                                                                \
		__typeof__(p) stolen_ = (p);                                                               \
		(p) = NULL;                                                                                \
		stolen_;                                                                                   \
	})

#endif
