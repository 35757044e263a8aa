/*
 * A bucket of an object store, mounted in a sandbox: what is asked for and what is shown of it.
 *
 * bucket.c owns the memory of the description, sandbox_bucket.c finds the driver that mounts. The key of a bucket is in the
 * request alone: no list, no message and no copy of it holds one, and its memory is wiped.
 */
#ifndef SBX_BUCKET_H
#define SBX_BUCKET_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "call.h"

struct sandbox;

struct bucket {
	char *name;      /* in mounts/ */
	char *bucket;    /* the store's name for it */
	char *dir;       /* in the sandbox: absolute, no component empty, `.`, `..` or over 255 bytes */
	char *endpoint;  /* URL of the store */
	char *prefix;    /* begins with /; NULL: all of it */
	bool path_style; /* the bucket is the first part of the path, not of the host name */
	bool read_only;
	char **options; /* s3fs's own, one -o each; NULL-terminated; NULL: none */
	/* The key, NULL: none is needed. token belongs to a key for a while; NULL: none. */
	char *key_id, *secret, *token;
};

void bucket_release(struct bucket *b);
/* All but the key: 0 or -ENOMEM (to is released). */
int bucket_copy(struct bucket *to, const struct bucket *from);
/* Would one be at, above or below the other's directory? */
bool bucket_dirs_meet(const char *a, const char *b);

/* --- what s3fs says when it cannot --- */

/* Of all that it said, which is taken apart, the line that tells why, without the time and the place in its source. */
void bucket_said(char *text, struct buf *out);
/* The fault of a mount that failed: a negative errno by these words; err is what the kernel said (-EIO: nothing). */
int bucket_failed(struct call *c, const struct bucket *b, const char *words, int err);

/* --- sandbox_bucket.c --- */

/*
 * Starts the sandbox if need be and mounts: 0 when the bucket has been listed once and stands at its directory. ENOTSUP where the server
 * has no buckets, EEXIST (name), EBUSY (directory), ENOENT, EACCES, EHOSTUNREACH as the store says, with a fault.
 */
int sandbox_bucket_mount(struct sandbox *sb, struct call *c, const struct bucket *b);
/* -ENOENT: there is none of this name. -EBUSY with a fault: a program of the sandbox uses it. */
int sandbox_bucket_unmount(struct sandbox *sb, struct call *c, const char *name);
/*
 * Those that are mounted, in the order of their names, without asking anybody: cb gets a description without key, and why it is
 * dead (NULL: it is not). A lock is held: cb waits for nothing and calls nothing here. It returns false to stop.
 */
void sandbox_bucket_each(
	struct sandbox *sb, bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg);
/* Is this path of the sandbox in one? As the directories were when they were mounted; asks nobody. */
bool sandbox_bucket_holds(struct sandbox *sb, const char *path);

#endif
