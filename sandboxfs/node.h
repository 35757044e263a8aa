/*
 * A node: what the kernel knows by a number, which is its address (1 for the root; front_impl.h).
 * The workspace and the control tree are two kinds of node with the same operations; the front calls through node_ops and knows neither.
 *
 * Owns the reference counts and the list of all nodes.
 * Handlers run on threads of their own and may block (their call can be cancelled). They return 0 or a count, or a
 * negative errno, or OP_REPLIED (op.h). A NULL operation answers -ENOTSUP (-ENOENT for lookup, -EACCES for create and mkdir).
 */
#ifndef SBX_NODE_H
#define SBX_NODE_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "op.h"

struct node;

/* An answer to lookup, create, mkdir, …: carries one reference to node for the kernel. */
struct node_entry {
	struct node *node;
	struct stat attr;
	double entry_timeout, attr_timeout; /* seconds */
};

enum { /* node_open.how: what the kernel is told */
	NODE_DIRECT_IO = 1,
	NODE_KEEP_CACHE = 2,
	NODE_STREAM = 4, /* no position: reads and writes do not lock each other out */
	NODE_PARALLEL_WRITES = 8,
	NODE_NONSEEKABLE = 16,
	NODE_NOFLUSH = 32
};

struct node_open {
	int flags;    /* in: open(2) flags */
	unsigned how; /* out */
	void *file;   /* out of open/create/opendir; in of everything on the open file */
};

/* Collects directory entries into a reply of limited size. */
struct node_filler;
/*
 * One entry with the offset at which a later readdir continues. e NULL: a name without attributes (looked up
 * when needed); ino and type (DT_* << 12 in mode) are then taken from st. With e, on success e->node's reference goes to the kernel.
 * Returns false if it did not fit: the reference stays with the caller, who stops.
 */
bool node_filler_add(struct node_filler *f, const char *name, const struct stat *st,
	const struct node_entry *e, off_t next);
bool node_filler_plus(const struct node_filler *f); /* does the kernel want attributes? */

struct node_ops {
	void (*destroy)(struct node *n); /* the last reference is gone: free it */
	/*
	 * An interval timer of the caller (SIGALRM with a handler, as git's progress display has) does not end its requests, as it
	 * ends none on a disk. False for control files, where `alarm` is a way to limit a wait.
	 */
	bool patient;

	int (*lookup)(struct node *dir, struct op *op, const char *name, struct node_entry *out);
	int (*getattr)(struct node *n, struct op *op, void *file, struct stat *st, double *timeout);
	int (*setattr)(struct node *n, struct op *op, void *file, const struct stat *st, int valid,
		struct stat *out, double *timeout); /* valid: FUSE_SET_ATTR_* as in NODE_SET_* */
	int (*readlink)(struct node *n, struct op *op, char **text); /* text: new */
	int (*mknod)(struct node *dir, struct op *op, const char *name, mode_t mode, dev_t dev,
		struct node_entry *out);
	int (*mkdir)(
		struct node *dir, struct op *op, const char *name, mode_t mode, struct node_entry *out);
	int (*symlink)(struct node *dir, struct op *op, const char *name, const char *text,
		struct node_entry *out);
	int (*link)(
		struct node *n, struct op *op, struct node *dir, const char *name, struct node_entry *out);
	int (*unlink)(struct node *dir, struct op *op, const char *name);
	int (*rmdir)(struct node *dir, struct op *op, const char *name);
	int (*rename)(struct node *dir, struct op *op, const char *name, struct node *newdir,
		const char *newname, unsigned flags);

	int (*create)(struct node *dir, struct op *op, const char *name, mode_t mode,
		struct node_entry *out, struct node_open *o);
	int (*open)(struct node *n, struct op *op, struct node_open *o);
	/* read answers with op_reply_data, or returns an error */
	int (*read)(struct node *n, struct op *op, void *file, size_t size, off_t off);
	/* write returns 0 and *done, an error, or OP_REPLIED */
	int (*write)(struct node *n, struct op *op, void *file, const void *p, size_t size, off_t off,
		size_t *done);
	int (*flush)(struct node *n, struct op *op, void *file);
	int (*release)(struct node *n, struct op *op, void *file); /* always frees file */
	int (*fsync)(struct node *n, struct op *op, void *file, int datasync);
	int (*poll)(struct node *n, struct op *op, void *file, struct op_poll *p,
		unsigned *revents); /* takes p (may be NULL) */
	int (*fallocate)(struct node *n, struct op *op, void *file, int mode, off_t off, off_t len);
	int (*lseek)(struct node *n, struct op *op, void *file, off_t off, int whence, off_t *out);
	int (*copy_range)(struct node *in, struct op *op, void *fin, off_t off, struct node *out,
		void *fout, off_t outoff, size_t len, size_t *done);

	int (*opendir)(struct node *n, struct op *op, struct node_open *o);
	int (*readdir)(struct node *n, struct op *op, void *file, off_t off, struct node_filler *f);
	int (*releasedir)(struct node *n, struct op *op, void *file);

	int (*statfs)(struct node *n, struct op *op, struct statvfs *st);
	int (*getxattr)(struct node *n, struct op *op, const char *name, void **value,
		size_t *size); /* value: new */
	int (*setxattr)(
		struct node *n, struct op *op, const char *name, const void *value, size_t size, int flags);
	int (*listxattr)(struct node *n, struct op *op, void **names, size_t *size);
	int (*removexattr)(struct node *n, struct op *op, const char *name);
};

enum { /* setattr's valid; the numbers are FUSE's */
	NODE_SET_MODE = 1 << 0,
	NODE_SET_UID = 1 << 1,
	NODE_SET_GID = 1 << 2,
	NODE_SET_SIZE = 1 << 3,
	NODE_SET_ATIME = 1 << 4,
	NODE_SET_MTIME = 1 << 5,
	NODE_SET_ATIME_NOW = 1 << 7,
	NODE_SET_MTIME_NOW = 1 << 8
};

/* Embedded as the first member by each kind. Made with one reference. */
struct node {
	const struct node_ops *ops;
	uint64_t id;              /* unique for ever, as the address is not: the generation */
	_Atomic uint64_t refs;    /* kernel's lookups and our own holds alike */
	_Atomic uint64_t lookups; /* of these the kernel's */
	struct node *next, *prev; /* node.c's list */
};

/* FNV-1a of text, which goes on from h: for numbers of inodes, and for tables. */
#define NODE_HASH_BEGIN 0xcbf29ce484222325ULL
static inline uint64_t node_hash(uint64_t h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3ULL;
	return h;
}

void node_init(struct node *n, const struct node_ops *ops);
struct node *node_get(struct node *n);
bool node_tryget(struct node *
		n); /* a reference, unless the last one is just going; the owner of a table holds its lock */
void node_put(struct node *n);

/* For the front: a reference goes to the kernel, comes back, or (at the end of the mount) all come back. */
void node_hand_out(struct node *n);
void node_forget(struct node *n, uint64_t count);
void node_forget_all(void);

#endif
