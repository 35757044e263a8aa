/*
 * A driver: how the sandboxes of one kind of server come to life and where their servers then listen.
 * One table of functions per kind (local.c, container.c). Everything that is said over the
 * wire once a sandbox listens is not the driver's: see sandbox.h.
 *
 * Functions may be called from any thread; those that may wait take a call. Faults are filled where understood.
 */
#ifndef SBX_DRIVER_H
#define SBX_DRIVER_H

#include <sys/statvfs.h>

#include "bucket.h"
#include "buf.h"
#include "call.h"
#include "http.h"
#include "options.h"

/* A sandbox that has been started: filled by start, owned by the driver until stop. */
struct driver_instance {
	struct http_target target;
	char network[128]; /* "internet", "none: /dev/net/tun is closed to this user", … */
	void *data;
	/*
	 * How often what leads to it was made or broke, for one whose way is the driver's own: odd while there is one; another number than before
	 * means that another sandbox may answer. Never waits. NULL: requests themselves show it.
	 */
	unsigned (*ways)(void *data);
};

struct driver_ops {
	const char *kind;     /* "local", "container" */
	const char *id_names; /* POSIX extended expression of the names it carries */
	bool many;            /* mkdir and rmdir make sense */
	bool starts;          /* its servers run from start to stop; else somebody else's run already */
	bool sleeps;          /* they sleep when nobody uses them, and a started one does not */
	bool
		ours; /* they are children of ours: one that takes no connection has ended, and died says so */

	/* 0 and *state new. options are borrowed for the life of state. */
	int (*open)(const struct options *o, struct call *c, void **state);
	void (*close)(void *state);
	/* Names known without asking anybody. */
	int (*list)(void *state, bool (*cb)(const char *name, void *arg), void *arg);
	/* Does it exist (without asking)? 0 or -ENOENT. */
	int (*probe)(void *state, const char *name);
	int (*create)(void *state, struct call *c, const char *name); /* accepted; does not start it */
	/* Removes what it kept; it has been stopped before. */
	int (*destroy)(void *state, struct call *c, const char *name);
	/*
	 * Starts it and waits until its socket takes connections. 0 and *out filled. -EBUSY with the sentence `in use by pid N (PATH)` when
	 * another mount has it. *died(arg) is called once from another thread if it ends without stop.
	 */
	int (*start)(void *state, struct call *c, const char *name, void (*died)(void *arg), void *arg,
		struct driver_instance *out);
	/*
	 * Ends it and everything it started; returns when nothing is left. The instance's memory is released. What is said to another's server is
	 * said by by_ms (call_now_ms).
	 */
	void (*stop)(void *state, int64_t by_ms, const char *name, struct driver_instance *inst);
	/* Who uses it, for status in-use, without starting: 0 free, 1 and detail filled ("pid 12, /home/u/sbx"). */
	int (*in_use)(void *state, const char *name, char *detail, size_t size);
	/* Where all sandboxes share the space of one disk: what it has for them. NULL, or 0 or a negative errno. */
	int (*space)(void *state, struct statvfs *out);
	/*
	 * A URL for a port of a sandbox that runs, which others can open: 0 and *url new. title, token: NULL, or what it is to be called and
	 * the secret in its name. -ENOTSUP without a fault: not here, ports are relayed to this host. NULL: the same.
	 */
	int (*expose)(void *state, struct call *c, const char *name, uint16_t port, const char *title,
		const char *token, char **url);
	int (*unexpose)(void *state, struct call *c, const char *name, uint16_t port);
	/* Buckets in a sandbox that runs; they end with it. As bucket.h says of sandbox_bucket_*. NULL: this kind of server mounts none. */
	int (*bucket_mount)(void *state, struct call *c, const char *name, const struct bucket *b);
	int (*bucket_unmount)(void *state, struct call *c, const char *name, const char *bucket);
	void (*bucket_each)(void *state, const char *name,
		bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg);
};

extern const struct driver_ops local_driver;
extern const struct driver_ops container_driver;
extern const struct driver_ops bridge_driver;

/* Is this a bridge's address: https, or a path /v1? */
bool bridge_is_address(const char *address);

#endif
