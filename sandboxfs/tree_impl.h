/*
 * Inside of the file tree, for tree*.c alone.
 *
 * Names and inodes: an inode is what (dev, ino, btime) say it is, so hard links are one node; a node knows the
 * names it was found under (its dentries), and its path is made from the first of them when it is needed.
 * A dentry can be out of date, since the sandbox renames too: every call by path carries the inode it
 * expects, a mismatch is ESTALE, the dentry goes and the next one is tried; with none left the
 * kernel is told ESTALE and looks the path up anew.
 *
 * Locks: tree.lock covers the tables, dentries and the lists of nodes; wnode.lock covers a node's open files and its
 * buffer. Order: tree.lock, then wnode.lock (tree_note_dirty alone); neither is held over a batch.
 * What must not overlap on one node across a batch (sending its buffer, staging) is serialised by wnode.busy (tree_io_begin, tree_io_end).
 */
#ifndef SBX_TREE_IMPL_H
#define SBX_TREE_IMPL_H

#include <pthread.h>

#include "batch.h"
#include "tree.h"
#include "waitq.h"

enum {
	CACHE_MS = 1000,       /* names and attributes are the kernel's for so long */
	BUFFER_SIZE = 1 << 20, /* of unsent bytes, per node */
	PREFETCH = 128 << 10,  /* bytes that come with an open */
	SMALL = 32 << 10,      /* a file of so many comes with each */
	SPACE_MARGIN =
		64 << 20 /* with less free space each write is sent at once, so that ENOSPC is write(2)'s */
};

struct tree;
struct wnode;
struct wfile;
struct conflict;

struct dentry {
	struct wnode *parent; /* reference */
	char *name;
	struct wnode *node; /* owns this dentry */
	struct dentry *hash_next;
	struct dentry *node_next;
	int64_t known_until_ms;  /* as the kernel was told */
	unsigned long known_age; /* the tree's, then */
};

struct wnode {
	struct node node;
	struct tree *tree;
	struct sandbox *sandbox;   /* reference */
	const char *root_path;     /* of a root: "/workspace" or "/"; else NULL */
	bool is_link_to_workspace; /* root/workspace; constant */
	uint64_t dev, ino;
	struct timespec btime;
	mode_t type;

	/* under tree.lock */
	struct dentry *dentries;
	struct wnode *hash_next;
	struct wnode *granted_prev,
		*granted_next; /* ring of what the kernel may hold, the latest last */
	int64_t granted_until_ms;
	unsigned long granted_age;             /* the tree's, then */
	struct wnode *dirty_prev, *dirty_next; /* ring of nodes with unsent bytes or a stage */
	bool in_dirty;
	bool unlinked_here; /* its last name was removed through this mount */
	char *last_path;    /* of a file: what it was called when it lost its last name; or NULL */
	/* of a directory, for some time: the hashes of all its names, sorted (tree_missing.c) */
	uint64_t *listed;
	size_t listed_count, listed_size;
	int64_t listed_until_ms;
	unsigned long listed_age; /* of the tree, when it was */
	unsigned long made;       /* names in it, by this mount */
	unsigned long touched;    /* how often it was changed */

	/* under lock */
	pthread_mutex_t lock;
	struct waitq io_queue;
	bool busy;               /* somebody sends for this node */
	int sync_err;            /* of the fsyncs that were sent with bytes; for who has busy */
	struct wfile *files;     /* open ones */
	unsigned mappable;       /* of these open for reading and writing: they may be mapped */
	unsigned long changes;   /* writes, truncations: what was read before is old */
	struct fileop_attr attr; /* last heard */
	bool has_attr;
	bool data_cached; /* the kernel may hold pages, those of data_attr */
	struct fileop_attr data_attr;
	/* the unsent bytes: one run, of one open file */
	struct wfile *buffer_file;
	char *buffer;
	size_t buffer_used;
	/* Of bytes to be appended that were sent to an end nobody knows: the number, how many, and SEND_*. busy's */
	uint64_t append_seq;
	size_t append_size;
	unsigned append_how;
	uint64_t buffer_off;
	int held_err; /* why it could not be sent; 0: it was not tried */
};

struct wfile {
	struct wnode *node;
	uint64_t handle;
	mode_t mode;    /* that a new file was asked to have */
	int flags;      /* open(2) */
	bool later;     /* it is not open yet: its first use opens it. Changed with busy and the lock */
	bool staged;    /* what is written is not at its name yet */
	bool unborn;    /* staged, and the name does not exist in the sandbox yet */
	bool wrote;     /* since the open: fstat must show what will stay */
	bool pushed;    /* bytes of the stage are in the sandbox alone: with its server they are lost */
	bool released;  /* closed here; lives on for its unsent bytes */
	bool removed;   /* out of the list; the last user frees it */
	bool by_path;   /* its name was another file's by then: what is open is that one, not node */
	unsigned users; /* who borrowed it (tree_borrow_file) */
	struct wfile *next;
	/* bytes that came with the open */
	char *ahead;
	size_t ahead_size;
	char *path; /* of one to be opened later, or by_path: as it was when it was asked for */
	unsigned long ahead_changes;
	int64_t ahead_until_ms;
};

struct tree {
	struct sandbox *sandbox; /* borrowed: it owns us */
	struct batch_client *client;
	uint64_t ino_seed;
	pthread_mutex_t lock;
	struct wnode *roots[2]; /* not references: they take themselves out */
	struct wnode **nodes;
	size_t node_count, node_buckets;
	struct dentry **dentries;
	size_t dentry_count, dentry_buckets;
	unsigned long age;         /* grows when all that is known of names is to be forgotten */
	int64_t replaced_until_ms; /* a second after an opening has found another file under its name */
	struct wnode granted, dirty; /* heads of rings; only the links are used */
	struct conflict *conflicts;  /* files made for bytes whose name was gone */
	struct node *control;        /* `.ctl` with subdir= */

	/* the closer: sends CLOSE for released handles, so that close(2) does not wait for it; and what could not be sent, again; opens what is to be opened later */
	pthread_mutex_t closer_lock;
	pthread_cond_t closer_wake;
	pthread_t closer;
	bool has_closer, closer_stop, retry, stale;
	struct call closer_call;
	struct opening {
		struct wnode *node; /* reference */
		struct wfile *file; /* borrowed as tree_borrow_file does */
	} opening[16];
	size_t opening_count;
	uint64_t *closing;
	size_t closing_count, closing_size;
};

extern const struct node_ops wnode_ops;
extern const struct sandbox_files tree_files_ops;

/* --- tree.c --- */
void tree_free(void *tree);

static inline struct wnode *wnode_of(struct node *n)
{
	return (struct wnode *)n;
}

/*
 * What an answer told of parent/name: the node, with a new reference, its dentry made or
 * corrected. -EIO for a name or type that no honest server sends.
 */
int tree_intern(
	struct wnode *parent, const char *name, const struct fileop_attr *a, struct wnode **out);
bool tree_acceptable_name(const char *name);
/* --- tree_dentry.c --- */
static inline uint64_t tree_mix(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return h ^ h >> 33;
}

struct wnode *tree_find_child(
	struct wnode *parent, const char *name); /* known under that name: new reference or NULL */
void tree_forget_name(struct wnode *parent, const char *name);
void tree_move_name(struct wnode *parent, const char *name, struct wnode *newparent,
	const char *newname, bool exchange);
/* A path of the node in the sandbox. which: the number of the dentry to use. 0, -ESTALE if there is no such, -ENOMEM. */
int tree_path(struct wnode *n, unsigned which, struct buf *out);
/* Or, of a file that has no name any more, the last that it had here. */
int tree_known_path(struct wnode *n, struct buf *out);
/* The path of name in a directory. */
int tree_child_path(struct wnode *dir, const char *name, struct buf *out);
/* Drops the dentry with that number. */
void tree_drop_dentry(struct wnode *n, unsigned which);
/* The directory of the node's first name: new reference or NULL. */
struct wnode *tree_parent(struct wnode *n);
/* How deep a directory lies: 0 for the root itself. */
int tree_dir_depth(struct wnode *dir, enum tree_root *root);
/* With tree.lock held: where parent/name is or would be; a dentry out of both lists; parent/name is node from now on (*old: what it was). */
struct dentry **tree_dentry_find(struct tree *t, struct wnode *parent, const char *name);
struct dentry *tree_dentry_take(struct tree *t, struct dentry *d);
int tree_dentry_set(struct tree *t, struct wnode *parent, const char *name, struct wnode *node,
	struct dentry **old);
/* Without the lock, for it gives up a reference. d may be NULL. */
void tree_dentry_free(struct dentry *d);

/* --- tree_missing.c --- */
/* A listing of a directory: begun before it is asked for, then names are added. */
struct missing {
	uint64_t *hashes;
	size_t count, size;
	bool failed;
	unsigned long made, age;
	int64_t until_ms;
};
void tree_missing_begin(struct wnode *dir, struct missing *m);
void tree_missing_add(struct missing *m, const char *name);
void tree_missing_know(struct wnode *dir, struct missing *m); /* it is complete: takes what m has */
void tree_missing_drop(struct missing *m);
/* The node of a name that is known within the second, with its attributes and how long these are still known. New reference or NULL; likewise. */
struct wnode *tree_known_child(
	struct wnode *dir, const char *name, struct fileop_attr *a, double *seconds);
/* The same of a directory itself, for who asks only because another reads it: the kernel does not know when it was read last. */
bool tree_known_dir(struct wnode *dir, struct fileop_attr *a, double *seconds);
void tree_forget_attr(struct wnode *n); /* it was changed from here */
/*
 * A batch is about to change a directory, and has succeeded: over a slow link it brings what the directory then is, for that is what the
 * kernel asks next, before each other change of it. Last in the batch.
 */
void tree_touch_begin(struct wnode *dir, struct batch *b, unsigned long *touch);
void tree_touch_end(struct wnode *dir, struct batch *b, unsigned long touch);
/* Is it known that there is no such name? Of a slow link alone. */
bool tree_is_missing(struct wnode *dir, const char *name);
/* With tree.lock held: there is one from now on, or none. */
void tree_missing_note(struct wnode *dir, const char *name, bool there);

/* --- tree_lists.c --- */
void tree_lists_init(struct tree *t);
void tree_lists_leave(struct wnode *n); /* at its end; tree.lock held */
void tree_note_granted(struct wnode *n);
/* In or out of the list of nodes that have something unsent; decides by the node itself. Not with wnode.lock held. */
void tree_note_dirty(struct wnode *n);
/* Each node of a list with a reference, new; with -ENOMEM the list is not complete. tree_put_nodes in any case. */
int tree_dirty_nodes(struct tree *t, struct wnode ***list, size_t *n);
int tree_granted_nodes(struct tree *t, struct wnode ***list, size_t *n);
int tree_all_nodes(struct tree *t, struct wnode ***list, size_t *n);
void tree_put_nodes(struct wnode **list, size_t n);
/* --- tree_closer.c --- */
/* Something could not be sent: it is tried again every other second. */
void tree_retry_later(struct tree *t);
/* Opens it soon, whether it is used or not, for it is to stay what it is; if there are many such, at its first use. */
void tree_open_soon(struct tree *t, struct wfile *f);
/* Queues a CLOSE. */
void tree_close_handle(struct tree *t, uint64_t handle);
/* The kernel is to forget what it was told: the server was started anew. */
void tree_invalidate_soon(void *tree);
void tree_closer_stop(struct tree *t);

/* --- tree_show.c --- */
/* attr to stat, as this mount shows it. link: the text of a symlink, already rewritten; may be NULL. */
void tree_stat(struct tree *t, const struct fileop_attr *a, const char *link, struct stat *st);
/* The text of a link at that depth of that tree as programs here are to read it. New; NULL: no memory. */
char *tree_show_link(
	struct tree *t, enum tree_root root, int depth, const char *text, const char *dir_path);
void tree_entry(
	struct wnode *n, const struct fileop_attr *a, const char *link, struct node_entry *e);
extern const struct fileop_attr tree_workspace_link_attr;      /* of root/workspace */
int tree_link_to_workspace(const struct tree *t, char **text); /* its text, new */
/* The text of a link found as name in dir, for here; NULL and 0 for what is no link. */
int tree_shown_link(struct wnode *dir, const struct fileop_attr *a, const char *text, char **out);
/* Reads attr (and a link's text where the answer has one) of dir/name into an entry. */
int tree_entry_from(
	struct wnode *dir, const char *name, struct reader *body, bool with_link, struct node_entry *e);
void tree_add_string(struct buf *b, const char *s);

/* --- tree_attr.c, tree_names.c --- */
/* Runs add() into a batch with the node's target (handle, or each of its paths), until it is not stale. body reads what follows; the batch is the caller's to release. */
struct target_job {
	enum fileop_code code;
	void (*add)(struct buf *b, void *arg); /* what follows the target; may be NULL */
	void *arg;
};
int tree_on_target(struct wnode *n, struct call *c, const struct target_job *job, struct batch *b,
	struct reader *body);
int tree_getattr(struct node *n, struct op *op, void *file, struct stat *st, double *timeout);
int tree_setattr(struct node *n, struct op *op, void *file, const struct stat *st, int valid,
	struct stat *out, double *timeout);
int tree_lookup(struct node *dir, struct op *op, const char *name, struct node_entry *out);
int tree_readlink(struct node *n, struct op *op, char **text);
int tree_mknod(struct node *dir, struct op *op, const char *name, mode_t mode, dev_t dev,
	struct node_entry *out);
int tree_mkdir(
	struct node *dir, struct op *op, const char *name, mode_t mode, struct node_entry *out);
int tree_symlink(
	struct node *dir, struct op *op, const char *name, const char *text, struct node_entry *out);
int tree_link(
	struct node *n, struct op *op, struct node *dir, const char *name, struct node_entry *out);
int tree_unlink(struct node *dir, struct op *op, const char *name);
int tree_rmdir(struct node *dir, struct op *op, const char *name);
int tree_rename(struct node *dir, struct op *op, const char *name, struct node *newdir,
	const char *newname, unsigned flags);
int tree_statfs(struct node *n, struct op *op, struct statvfs *st);
int tree_getxattr(struct node *n, struct op *op, const char *name, void **value, size_t *size);
int tree_setxattr(
	struct node *n, struct op *op, const char *name, const void *value, size_t size, int flags);
int tree_listxattr(struct node *n, struct op *op, void **names, size_t *size);
int tree_removexattr(struct node *n, struct op *op, const char *name);

/* --- tree_handle.c --- */
void tree_add_file(struct wnode *n, struct wfile *f);
void tree_remove_file(struct wnode *n, struct wfile *f); /* closes and frees it */
void tree_free_file(struct wfile *f);
/* An open file to reach the node by, NULL if it has none: it stays until it is returned, though it may be closed meanwhile. */
struct wfile *tree_borrow_file(struct wnode *n);
/* One by_path, for a node that cannot be reached otherwise. */
struct wfile *tree_borrow_by_path(struct wnode *n);
void tree_return_file(struct wnode *n, struct wfile *f); /* f may be NULL */
uint64_t tree_handle(struct wfile *f);
uint64_t tree_any_handle(struct wnode *n); /* of such a file; 0: none */
unsigned tree_open_flags(int flags);       /* open(2)'s to FILEOP_O_* */
void tree_add_open(struct batch *b, uint64_t handle, const char *path, const struct wnode *expect,
	unsigned flags, mode_t mode);
int tree_get_opened(struct reader *body, struct fileop_attr *a, bool *created, bool *staged);
/* The server has lost the handle: opens the same inode again. A stage is lost with it. busy is ours. */
int tree_reopen(struct wfile *f, struct call *c);
/* The same for who does not hold busy, unless another has done it: lost is the handle that was used. */
int tree_renew(struct wfile *f, struct call *c, uint64_t lost);
/* One call on the file's handle, asked again with a new one if the server has lost it. Not with busy. As tree_on_target otherwise. */
struct handle_job {
	enum fileop_code code;
	void (*add)(struct buf *b, uint64_t handle, void *arg);
	void *arg;
};
int tree_on_handle(struct wfile *f, struct call *c, const struct handle_job *job, struct batch *b,
	struct reader *body);

/* --- tree_send.c: all but tree_settle* are for who holds busy, or say so --- */
int tree_io_begin(struct wnode *n, struct call *c); /* takes busy: 0 or -EINTR */
void tree_io_end(struct wnode *n);
enum {
	SEND_COMMIT = 1, /* the stage gets its name */
	SEND_SYNC = 2,   /* as fsync(2), in the same request */
	SEND_KEPT = 4 /* the bytes are the buffer's, which sends them again until there is an answer */
};
/* Writes p at off, or nothing. how: SEND_*. */
int tree_send(struct wfile *f, struct call *c, const void *p, size_t size, uint64_t off,
	unsigned how, struct fileop_attr *a);
/* The buffer, and with SEND_COMMIT the stages. sent: was there anything. */
int tree_push(struct wnode *n, struct call *c, unsigned how, struct fileop_attr *a, bool *sent);
int tree_send_buffer(struct wnode *n, struct call *c); /* takes busy itself */
void tree_clear_buffer(struct wnode *n);
bool tree_gone_by_us(struct wnode *n); /* without busy */
/* Was something written to it that is not in the sandbox, or not under its name? Without busy. */
bool tree_has_unsent(struct wnode *n);

/* --- tree_open.c, tree_file.c --- */
int tree_create(struct node *dir, struct op *op, const char *name, mode_t mode,
	struct node_entry *out, struct node_open *o);
int tree_open(struct node *n, struct op *op, struct node_open *o);
/* If it is to be opened later: now. */
int tree_open_now(struct wfile *f, struct call *c);
/* All those of a node: it is about to lose its name. */
int tree_open_all_now(struct wnode *n, struct call *c);
int tree_read(struct node *n, struct op *op, void *file, size_t size, off_t off);
int tree_write(
	struct node *n, struct op *op, void *file, const void *p, size_t size, off_t off, size_t *done);
int tree_flush(struct node *n, struct op *op, void *file);
int tree_release(struct node *n, struct op *op, void *file);
int tree_fsync(struct node *n, struct op *op, void *file, int datasync);
int tree_fallocate(struct node *n, struct op *op, void *file, int mode, off_t off, off_t len);
int tree_lseek(struct node *n, struct op *op, void *file, off_t off, int whence, off_t *out);
int tree_copy_range(struct node *in, struct op *op, void *fin, off_t off, struct node *out,
	void *fout, off_t outoff, size_t len, size_t *done);

/*
 * Sends what is unsent of the node and gives staged bytes their name. 0 (*sent: was there anything; *a then is what the file now
 * is; both may be NULL) or an errno; what could not be sent is kept, stays visible here and is tried again.
 */
int tree_settle(struct wnode *n, struct call *c, struct fileop_attr *a, bool *sent);
/* The same, and what is sent is on the sandbox's disk then. */
int tree_settle_synced(struct wnode *n, struct call *c, bool *sent);
/* The same for the children of dir that have no name in the sandbox yet or are staged; only for name if not NULL. */
int tree_settle_children(struct wnode *dir, const char *name, struct call *c);
/* Gives up what is unsent. */
int tree_drop_unsent(struct wnode *n, struct call *c);
void tree_note_attr(struct wnode *n, const struct fileop_attr *a);
bool tree_same_data(const struct fileop_attr *a, const struct fileop_attr *b);

/* --- tree_conflict.c --- */
/* f was written, and its file has no name any more: its content gets one of its own. 0 or an errno. */
int tree_salvage(struct wnode *n, struct wfile *f, struct call *c);
/*
 * f could not be sent: its file is not there (-ESTALE). Its unsent bytes get a file of their own, and *a is what was last known of
 * the file. -ESTALE where that is not to be: nothing is unsent, or another sandbox waits to be accepted. Of one that was removed through
 * this mount they are dropped when nobody has it open any more, -ESTALE till then.
 */
int tree_salvage_unsent(struct wnode *n, struct wfile *f, const void *bytes, size_t size,
	struct call *c, struct fileop_attr *a);
void tree_forget_conflict(struct tree *t, const char *path);
void tree_describe_conflicts(struct tree *t, struct buf *out);
void tree_free_conflicts(struct tree *t);

/* --- tree_sync.c --- */
void tree_invalidate(struct tree *t, struct call *c); /* c: ends what it asks the sandbox */

/* --- tree_dir.c --- */
int tree_opendir(struct node *n, struct op *op, struct node_open *o);
int tree_readdir(struct node *n, struct op *op, void *file, off_t off, struct node_filler *f);
int tree_releasedir(struct node *n, struct op *op, void *file);

#endif
