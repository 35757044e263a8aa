/*
 * Inside of the front, for its files alone: front.c (the session), fuse.c (requests to operations), fuse_dir.c (directories).
 *
 * What the kernel calls a nodeid is the address of the node (1 is the root): it lives as long as the kernel holds a
 * lookup on it.
 */
#ifndef SBX_FRONT_IMPL_H
#define SBX_FRONT_IMPL_H

#include "op_impl.h"

struct front {
	struct fuse_session *se;
	struct node *root;
	struct op_table *ops;
	struct loop *loop;
	pthread_mutex_t lock;
	pthread_cond_t told; /* a notification has come back */
	unsigned telling;    /* under lock: notifications on their way */
	bool ended;          /* under lock: nobody serves any more, so nothing is told */
};

extern const struct fuse_lowlevel_ops front_requests;

static inline struct front *front_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct node *front_node(fuse_req_t req, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? front_of(req)->root : (struct node *)(uintptr_t)ino;
}

static inline fuse_ino_t front_ino(const struct front *f, const struct node *n)
{
	return n == f->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
}

static inline void *front_file(const struct fuse_file_info *fi)
{
	return fi ? (void *)(uintptr_t)fi->fh : NULL;
}

/* The op of a request; NULL: no memory, and the request has been answered so. */
struct op *front_begin(fuse_req_t req, const struct node *n);
/* Answers with an operation's result, unless that has answered itself. */
void front_answer(struct op *op, int err);
struct fuse_entry_param front_entry(const struct front *f, const struct node_entry *e);
/*
 * The end of an open file or directory. The kernel says it once and heeds no answer: without memory for an op
 * the file is let go all the same.
 */
void front_release(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi,
	int (*release)(struct node *n, struct op *op, void *file));

/* --- fuse_dir.c --- */
void front_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void front_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void front_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

#endif
