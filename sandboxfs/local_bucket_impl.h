/* What local_bucket.c (records, s3fs, what is asked) and local_bucket_attach.c (the move of a mount) share. For no one else. */
#ifndef SBX_LOCAL_BUCKET_IMPL_H
#define SBX_LOCAL_BUCKET_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bucket.h"
#include "local.h"

enum { LOOK_MS = 20, END_MS = 10000 };

enum bucket_state { BUCKET_COMING, BUCKET_MOUNTED, BUCKET_GOING };

struct record {
	struct record *next; /* by name */
	struct bucket_set *set;
	struct bucket bucket; /* without the key */
	enum bucket_state state;
	struct child *s3fs; /* bubblewrap, whose child it is; NULL: not started yet */
	bool ended;         /* it is not there any more, and neither is the file system */
	unsigned major, minor;
};

struct bucket_set {
	struct local *l;
	char *name; /* of the sandbox */
	int init;   /* pidfd */
	pid_t pid;
	pthread_mutex_t lock;
	struct record *first;
	bool closing;
	bool used; /* there is a directory for temporary files */
};

/* --- local_bucket.c --- */

/* Its s3fs has ended, and the file system with it. */
bool record_ended(const struct record *r);
/* What every wait looks at between two polls: 0 to go on, else the errno to end with. c: or NULL. */
int record_go_on(struct call *c, const struct record *r, int64_t until);

/* --- local_bucket_attach.c; but for the first with the record's s3fs started --- */

/* The sandbox's mount namespace and the user namespace that owns it: descriptors. -ESRCH: it has ended. */
int bucket_set_namespaces(const struct bucket_set *s, int *mounts, int *users);
/* Until s3fs, whose pid 1 that is, has mounted, in a namespace of which *mounts is then a descriptor. 0 or an errno. */
int record_wait_mounted(struct record *r, struct call *c, pid_t pid, int64_t until, int *mounts);
/*
 * Moves the mount from the namespace mounts to its directory in the namespace box, by a child in the user namespace users.
 * 0, or an errno: what was done by then is undone, and s3fs may have been killed.
 */
int record_attach(struct record *r, struct call *c, int users, int mounts, int box, int64_t until);
/* 0: it is not mounted any more. Else an errno; -EBUSY: it is in use. c: or NULL. */
int record_detach(struct record *r, struct call *c);

#endif
