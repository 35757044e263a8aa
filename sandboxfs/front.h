/*
 * The front: the FUSE session. Reads requests, calls node operations, answers.
 *
 * Owns the fuse_session, the threads that read requests (each handler runs on
 * the thread that read its request; before it starts, another thread reads on), the table of
 * ops in progress and the interrupt thread. The only files that include FUSE's headers are
 * front.c, fuse.c, fuse_dir.c, loop.c, op.c and mount.c.
 */
#ifndef SBX_FRONT_H
#define SBX_FRONT_H

#include "node.h"

struct front;

/* root: takes the reference. 0 and *out, or a negative errno. */
int front_new(struct node *root, struct front **out);
/* Makes the mount with libfuse's arguments. 0, -EINVAL (options) or -EIO (libfuse said why on stderr). */
struct fuse_args;
int front_mount(struct front *f, struct fuse_args *args, const char *mountpoint);
/* Serves until the mount ends or front_stop. Call after the mount is made. */
int front_serve(struct front *f);
/* Ends front_serve: every op in progress is cancelled. Any thread. */
void front_stop(struct front *f);
void front_free(struct front *f);

/* How many ops are in progress (ctl/stats), and how many threads there are. */
void front_counts(struct front *f, uint64_t *requests, uint64_t *active, uint64_t *threads);

/*
 * Drops what the kernel caches: attributes, and with data the pages too (dirty ones are written first).
 * Can wait behind requests of the kernel: call from a thread that answers none.
 */
void front_forget_inode(struct front *f, struct node *n, bool data);

#endif
