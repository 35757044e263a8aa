/*
 * Inside of the control tree: what ctl_fs.c, list.c, tree.c, pump.c and the kinds show each other. Rows and handlers need ctl.h alone.
 *
 * A node is one name of the tree. Nodes of files that take requests are made anew for every lookup, with the
 * same inode number: the kernel locks an inode while a write to it waits, and two writers must not
 * wait for each other. All others are kept by path in the tree, so that a directory in use stays one inode
 * (getcwd, cd ..).
 *
 * Lock order: a file's lock or its channel's, then the source's own (in next), then the pump's. The tree's lock is a leaf.
 */
#ifndef CTL_KINDS_H
#define CTL_KINDS_H

#include <fcntl.h>
#include <poll.h>

#include "ctl.h"
#include "node.h"
#include "op.h"

struct ctl_tree;
struct ctl_pump;

struct ctl_node {
	struct node node;
	struct ctl_tree *tree;     /* a reference */
	struct ctl_node *parent;   /* a reference; NULL at the top */
	const struct ctl_row *row; /* NULL at the top */
	const struct ctl_dir *dir; /* of a directory; of `help`: the one it tells of */
	const struct ctl_set *set; /* of whose objects this is one; NULL: of none */
	struct ctl_ref ref;        /* holds a reference to its sandbox; to the object if set */
	char *path;                /* below ctl/; "" at the top */
	const char *name;          /* the end of path */
	uint64_t ino;
	/* under the tree's lock */
	bool kept;
	struct ctl_node *next;
};

/* --- tree.c: one per ctl/ directory: live nodes, last answers, late errors, the pump --- */
int ctl_tree_of(struct server *server, struct sandbox *sandbox, struct ctl_tree **out);
struct ctl_tree *ctl_tree_get(struct ctl_tree *t);
void ctl_tree_put(struct ctl_tree *t);
/* Keeps n under its path and returns it; or, where one for the same object is kept, that one (new reference) and n is put. */
struct ctl_node *ctl_tree_keep(struct ctl_tree *t, struct ctl_node *n);
/* The node kept under this path for this object: new reference or NULL. */
struct ctl_node *ctl_tree_kept(struct ctl_tree *t, const char *path, const void *object);
void ctl_tree_drop(struct ctl_tree *t, struct ctl_node *n);
struct ctl_pump *ctl_tree_pump(struct ctl_tree *t);
/* A request was answered now, which ends the late error of an earlier one; answer may be NULL, else its content is copied as the last answer. */
void ctl_tree_answered(struct ctl_tree *t, const char *path, const struct buf *answer);
void ctl_tree_last_answer(struct ctl_tree *t, const char *path, struct buf *out);
/* The time of the last answer, or of the tree's making. */
struct timespec ctl_tree_time(struct ctl_tree *t, const char *path);
/* An error that came too late for its request meets the next opening that reads, once, if no request was answered since. */
void ctl_tree_note_late(struct ctl_tree *t, const char *path, int err);
int ctl_tree_take_late(struct ctl_tree *t, const char *path);
/* An opening of a listing from which names can be removed, and whose it is. */
struct ctl_opening {
	struct ctl_opening *next;
	uint64_t ino;  /* the directory's */
	pid_t process; /* 0: unknown, and not kept */
	bool told;     /* a removal was refused because of it */
};
/* o is borrowed until it is closed. */
void ctl_tree_opened(struct ctl_tree *t, struct ctl_opening *o);
void ctl_tree_closed(struct ctl_tree *t, struct ctl_opening *o);
/* Has this process the directory open? Waits a moment for what it has just closed. */
bool ctl_tree_is_open(struct ctl_tree *t, uint64_t ino, pid_t process);

/* --- pump.c: a thread that serves channels after a wake; started at its first use --- */
struct ctl_channel;
int ctl_pump_new(struct ctl_pump **out);
void ctl_pump_free(struct ctl_pump *p);
/* For one channel more, until it leaves. -ESTALE: retired. */
int ctl_pump_start(struct ctl_pump *p);
/* Takes no new channels; its thread ends with the last there is. */
void ctl_pump_retire(struct ctl_pump *p);
void ctl_pump_wake(struct ctl_pump *p, struct ctl_channel *ch);
/* When it returns, the pump is not and will not be at this channel (no wakes may come any more). */
void ctl_pump_leave(struct ctl_pump *p, struct ctl_channel *ch);

/* --- ctl_fs.c --- */
/* Completes and notes the fault of a failure; returns err. c may be NULL. */
int ctl_fail(struct ctl_node *n, struct call *c, int err, const char *operation);
/* The same, but for the answers that directories give every day (ENOENT, EEXIST, ENOTEMPTY). */
int ctl_fail_name(struct ctl_node *n, struct call *c, int err, const char *operation);
/* Before the first byte of a document or conversation. */
int ctl_begin(struct ctl_node *n, struct call *c);
static inline bool ctl_is_dir(const struct ctl_node *n)
{
	return !n->row || n->row->kind == CTL_DIR;
}
uint64_t ctl_inode(struct sandbox *sb, const char *path);
mode_t ctl_mode(const struct ctl_row *row); /* with the type */
extern const struct ctl_row ctl_help_row;

/* --- list.c: node operations of listings; the text of help --- */
int ctl_list_open(struct node *n, struct op *op, struct node_open *o);
int ctl_list_read(struct node *n, struct op *op, void *file, off_t off, struct node_filler *f);
int ctl_list_close(struct node *n, struct op *op, void *file);
/* Before name is removed from dir: -EPERM with a fault for a program that walks (list.c says which does). */
int ctl_list_guard(struct ctl_node *dir, struct op *op, const char *name, bool directory);
void ctl_help(const struct ctl_dir *d, struct buf *out);

/* --- an opening --- */
struct ctl_file;
struct ctl_file_ops {
	int (*read)(struct ctl_file *f, struct op *op, size_t size, off_t off);
	int (*write)(struct ctl_file *f, struct op *op, const void *p, size_t n);
	int (*flush)(struct ctl_file *f, struct op *op);
	void (*release)(struct ctl_file *f, struct op *op); /* frees f; op may be NULL */
	int (*poll)(
		struct ctl_file *f, struct op_poll *p, unsigned *revents); /* takes p. NULL: always ready */
};
struct ctl_file {
	const struct ctl_file_ops *ops;
	struct ctl_node *node; /* a reference, put by ctl_fs.c after release */
	int flags;
};
static inline bool ctl_file_writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}
static inline bool ctl_file_reads(int flags)
{
	return (flags & O_ACCMODE) != O_WRONLY;
}

/* Each kind's open: *out new. They set o->how. */
typedef int ctl_open_fn(
	struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out);
ctl_open_fn ctl_text_open;   /* text.c: whatever is read as text made at open */
ctl_open_fn ctl_sized_open;  /* sized.c */
ctl_open_fn ctl_stream_open; /* stream.c */
ctl_open_fn ctl_lines_open;  /* verbs.c: verbs and calls, to write */
ctl_open_fn ctl_doc_open;    /* doc.c: documents and texts, to write */
ctl_open_fn ctl_upload_open; /* upload.c: bytes that are handed on as they come */
ctl_open_fn ctl_talk_open;   /* talk.c: conversations, and the documents of such files */

/* --- doc.c: a document on its way --- */
struct ctl_document {
	struct buf text;
	size_t max;
	bool over;    /* too long: nothing of it is sent */
	pid_t opener; /* the process (not thread) that opened it; 0 unknown */
};
enum ctl_flush { CTL_FLUSH_LEAVE, CTL_FLUSH_SEND, CTL_FLUSH_DROP };
void ctl_document_init(struct ctl_document *d, struct op *op, size_t max);
int ctl_document_add(struct ctl_document *d, struct call *c, const void *p, size_t n);
/* What a FLUSH means for it. *signal is what killed the writer, with CTL_FLUSH_DROP. */
enum ctl_flush ctl_document_flush(const struct ctl_document *d, struct op *op, int *signal);
/* The process of a thread; 0: unknown. */
pid_t ctl_process_of(pid_t tid);

/* --- stream.c: reads that wait without a thread, in order --- */
struct ctl_waiter;
struct ctl_channel {
	pthread_mutex_t lock; /* covers all but the last three */
	struct ctl_pump *pump;
	ssize_t (*next)(void *source, void *p, size_t n); /* NULL until the source is open */
	bool (*writable)(void *source);                   /* NULL: always, and others tell */
	bool full;                                        /* poll was told that it is not */
	void *source;
	struct ctl_node
		*node; /* borrowed: where an error of the source is noted; NULL: the source does */
	bool nonblock;
	bool whole; /* a read waits until it can be answered in full, or the end */
	struct ctl_waiter *first, **last;
	struct op_poll *poll;
	char *pending; /* bytes taken from the source and not yet read */
	size_t pending_size, pending_at;
	bool ended; /* the source said so (end_err), not yet told */
	int end_err;
	/* For conversations: what was told, and to whom the end was. */
	bool told_any;
	char told_last;
	pid_t end_reader;
	bool cut_line; /* the end did not follow a newline */
	/* under the pump's lock */
	struct ctl_channel *pump_next;
	bool queued, busy;
};
int ctl_channel_init(struct ctl_channel *ch, struct ctl_pump *pump, int flags);
int ctl_channel_read(struct ctl_channel *ch, struct op *op, size_t size);
void ctl_channel_wake(struct ctl_channel *ch);
void ctl_channel_serve(struct ctl_channel *ch); /* the pump's */
int ctl_channel_poll(struct ctl_channel *ch, struct op_poll *p, unsigned *revents);
/* Before the source is closed: it is not asked any more, though wakes may come. */
void ctl_channel_leave(struct ctl_channel *ch);
/* After the source is closed; answers whoever still waits with EINTR. */
void ctl_channel_destroy(struct ctl_channel *ch);

/* --- status.c --- */
void ctl_put_time(struct buf *out, const struct timespec *t); /* ISO 8601, UTC, ms */
int ctl_show_status(const struct ctl_ref *ref, struct call *c, struct buf *out);
int ctl_show_sync(const struct ctl_ref *ref, struct call *c, struct buf *out);
int ctl_show_error(const struct ctl_ref *ref, struct call *c,
	struct buf *out); /* of the sandbox, or of the server */

/* --- exec.c, exec_json.c --- */
extern const struct ctl_talk_ops ctl_exec_talk, ctl_exec_json_talk;
extern const struct ctl_stream_ops ctl_exec_stream, ctl_exec_json_stream;
int ctl_exec_begin(const struct ctl_ref *ref, struct call *c);

/* --- server.c: files of the server, also shown in a sandbox that is mounted alone --- */
int ctl_show_server(const struct ctl_ref *ref, struct call *c, struct buf *out);
int ctl_show_stats(const struct ctl_ref *ref, struct call *c, struct buf *out);
int ctl_show_log(const struct ctl_ref *ref, struct call *c, struct buf *out);
#define CTL_SERVER_ROWS                                                                            \
	{.name = "server",                                                                             \
		.mode = 0444,                                                                              \
		.kind = CTL_TEXT,                                                                          \
		.show = ctl_show_server,                                                                   \
		.grammar =                                                                                 \
			"R url, kind, version, id-names, then `can NAME` or `cannot NAME SENTENCE` lines"},    \
		{.name = "stats",                                                                          \
			.mode = 0444,                                                                          \
			.kind = CTL_TEXT,                                                                      \
			.show = ctl_show_stats,                                                                \
			.grammar = "R NAME NUMBER lines"},                                                     \
	{                                                                                              \
		.name = "log", .mode = 0444, .kind = CTL_TEXT, .show = ctl_show_log,                       \
		.grammar = "R the newest 1000 TIME LEVEL TEXT lines"                                       \
	}
extern const struct ctl_dir ctl_single_dir; /* sandbox_dir.c: ctl/ with -o sandbox= */

#endif
