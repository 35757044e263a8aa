/*
 * What the files of the bridge driver share: bridge.c (life of a sandbox, what is said to the bridge), bridge_extras.c (buckets, ports that
 * others see). Nobody else includes it.
 */
#ifndef SBX_BRIDGE_IMPL_H
#define SBX_BRIDGE_IMPL_H

#include <pthread.h>

#include "bucket.h"
#include "driver.h"
#include "names.h"
#include "run_dir.h"

enum {
	REQUEST_MS = 150000, /* a cold container answers after this much at most */
	REPLY_MOST = 1 << 20
};

struct bridge_bucket;

struct bridge {
	const struct options *options;
	struct http *http;
	struct http_target target; /* https://HOST[:PORT] */
	struct names names;
	struct run_dir run;
	struct programs *programs; /* what a sandbox is brought */
	uint64_t random;           /* in the name of what it puts into a sandbox */
	pthread_mutex_t lock;
	struct bridge_bucket
		*buckets; /* lock; those that this mount has mounted, in the order of their names */
};

/* --- bridge.c --- */

/* One exchange below /v1/sandbox/NAME; 0 with any status, which is in reply (release its body in any case); else a fault. */
int bridge_ask(const struct bridge *b, struct call *c, const char *method, const char *name,
	const char *route, const char *type, const void *body, size_t size, int64_t timeout_ms,
	struct http_reply *reply);
/* What a status that is not the wanted one means, with a fault that begins with what. -EAGAIN: later it may be otherwise. */
int bridge_refused(
	const struct bridge *b, struct call *c, const char *what, int status, const struct buf *body);

/* --- bridge_extras.c; as driver.h says --- */
int bridge_expose(void *state, struct call *c, const char *name, uint16_t port, const char *title,
	const char *token, char **url);
int bridge_unexpose(void *state, struct call *c, const char *name, uint16_t port);
int bridge_bucket_mount(void *state, struct call *c, const char *name, const struct bucket *b);
int bridge_bucket_unmount(void *state, struct call *c, const char *name, const char *bucket);
void bridge_bucket_each(void *state, const char *name,
	bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg);
/* Of one sandbox, which is not gone to any more; NULL: of all. */
void bridge_forget_buckets(struct bridge *b, const char *name);

#endif
