/*
 * The control tree: what a row of a table can be.
 *
 * A directory is an array of rows; a row is a name, a mode, a kind and the functions of that kind. Adding a
 * file is adding a row and one function. ctl_fs.c serves rows as nodes; each kind has a file of its own (text.c,
 * sized.c, stream.c, verbs.c, doc.c, talk.c, upload.c) that owns buffering, offsets, sizes, poll, interrupts and
 * non-blocking opens for all its rows. A handler gets a parsed request and a place to write text. It never sees
 * a FUSE type, and a failure returns a negative errno with call_fault() filled: the room notes it in the sandbox's `error`.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "buf.h"
#include "call.h"
#include "node.h"
#include "sandbox.h"

enum ctl_kind {
	CTL_DIR,  /* .dir */
	CTL_TEXT, /* .show at open; .store if it can be written (whole text of one opening, sent at close or first read) */
	CTL_SIZED,  /* .size .pread: true size, read in place, may grow */
	CTL_STREAM, /* .stream: a cursor per opening, blocks, poll, EAGAIN for O_NONBLOCK. `wait` files are streams that say one thing */
	CTL_VERBS,  /* .verbs: a line each, done by the write; .show for reading (settings) */
	CTL_CALL, /* .call: one line in, done by the write; the answer is read from the same opening; a fresh reader gets the last answer (.show if set); with .talk an opening for both is a conversation */
	CTL_DOC, /* .submit: a document sent whole at close or first read; the answer is read from the same opening */
	CTL_TALK, /* .talk for RW (conversation) and for W alone (document; or .submit), .stream or .show for R (never waits) */
	CTL_UPLOAD, /* .upload to write: bytes taken as they come, the close waits for the end and fails with its error; .stream to read */
	CTL_LINK    /* .target */
};

/* What a row works on: the object of the innermost set, and those above it. */
struct ctl_ref {
	struct server *server;
	struct sandbox *sandbox;  /* NULL in MNT/ctl */
	void *object;             /* of the innermost set; NULL at the top */
	const struct ctl_ref *up; /* the ref of the directory that holds the set; NULL at the top */
	const char *path;         /* below ctl/, for messages: "processes/web/wait-port" */
};

struct ctl_row;
struct ctl_dir;

/* A verb: argv[0] is its name. Words are split by ctl_split. */
struct ctl_verb {
	const char *name;
	int min, max; /* words after the name */
	int (*run)(const struct ctl_ref *ref, struct call *c, int argc, char **argv);
	const char *grammar; /* "kill [TERM|INT|KILL|N]" */
};

/* A stream's source: called with the stream's lock held unless said. */
struct ctl_stream; /* one opening */
struct ctl_stream_ops {
	/* At open: 0 and *cursor, or an errno. May wait (lock not held). Keep s to wake it. */
	int (*open)(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor);
	/* What is there now: >0 bytes, 0 the end, -EAGAIN nothing yet (ctl_stream_wake will come), other errors are the read's. Does not wait. */
	ssize_t (*next)(void *cursor, void *p, size_t n);
	/* No further wakes after this returns. Lock not held. */
	void (*close)(void *cursor);
};
/* There may be something to read: any thread, any locks of the source's own. */
void ctl_stream_wake(struct ctl_stream *s);

/* A conversation: an opening for reading and writing. */
struct ctl_talk; /* one opening; wake as for streams */
struct ctl_talk_ops {
	int (*open)(const struct ctl_ref *ref, struct call *c, struct ctl_talk *t, void **state);
	/* One line without its newline (up to 1 MiB): starts; the write returns with this. May wait for the start only. */
	int (*line)(void *state, struct call *c, const char *text, size_t n);
	ssize_t (*next)(void *state, void *p, size_t n); /* as ctl_stream_ops.next */
	void (*close)(void *state);                      /* the last close: ends what still runs */
	/*
	 * An opening for writing alone (NULL: the row's submit). first: its first byte has come, the rest will follow;
	 * document: all of it; waits for the end. first without document: it was cut or too long, nothing is to be done.
	 */
	int (*first)(void *state, struct call *c);
	int (*document)(void *state, struct call *c, const char *text, size_t n);
	/* Openings for writing alone are lines too, each sent by its write; a last line needs no newline. */
	bool live;
	/* An opening for both: what is written until the next read (or else the last close, by document) is one request, no lines. */
	bool whole;
	/* Not NULL: what is written is no lines, whatever the opening; each write is handed on as it is. May wait. */
	int (*bytes)(void *state, struct call *c, const void *p, size_t n);
	/* Would a line or bytes be taken without waiting? (poll; NULL: always). As next; ctl_talk_wake will come when it changes. */
	bool (*writable)(void *state);
};
void ctl_talk_wake(struct ctl_talk *t);
/* Opened O_NONBLOCK: what would wait is -EAGAIN. */
bool ctl_talk_nonblock(struct ctl_talk *t);

/* An opening for writing whose bytes are handed on as they come. */
struct ctl_upload_ops {
	int (*open)(const struct ctl_ref *ref, struct call *c, void **state);
	int (*write)(void *state, struct call *c, const void *p, size_t n); /* may wait for room */
	int (*finish)(void *state, struct call *c); /* all was written: waits for what comes of it */
	void (*close)(void *state);                 /* without finish before it: it was cut */
};

struct ctl_row {
	const char *name;
	mode_t mode; /* permission bits; 0200 without 0400 cannot be read and so on */
	enum ctl_kind kind;
	const char *grammar; /* one line for help */
	bool unlisted;       /* answers to its name, is not in readdir */
	bool copied;         /* shown as 0600, so that a copy can be replaced; no more can be written */

	const struct ctl_dir *dir;
	int (*show)(const struct ctl_ref *ref, struct call *c, struct buf *out);
	/* append: opened O_APPEND or without O_TRUNC (the file decides what that means) */
	int (*store)(
		const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append);
	int (*size)(const struct ctl_ref *ref, struct call *c, uint64_t *size);
	ssize_t (*pread)(const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off);
	const struct ctl_stream_ops *stream;
	/* A read of the stream is short only at its end, as of a regular file (for programs that read blocks). Not of O_NONBLOCK openings. */
	bool whole;
	/* Reading the stream takes a sandbox that runs, and starts it; an O_NONBLOCK opening is EAGAIN instead (grep -r opens all so). */
	bool starts;
	const struct ctl_verb *verbs; /* ended by a NULL name */
	int (*call)(
		const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer);
	/* Before the first byte of a document or conversation is taken: its failure is the open's. NULL: sandbox_ready. */
	int (*begin)(const struct ctl_ref *ref, struct call *c);
	int (*submit)(
		const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer);
	const struct ctl_talk_ops *talk;
	const struct ctl_upload_ops *upload;
	int (*target)(const struct ctl_ref *ref, struct call *c, struct buf *text);
	struct timespec (*mtime)(const struct ctl_ref *ref); /* NULL: time of the last answer */
	int (*touch)(
		const struct ctl_ref *ref, struct call *c); /* utimens; NULL: succeeds and does nothing */
	bool empty;                                     /* CTL_CALL: an empty line is a request too */
	size_t
		max; /* longest document or line; 0: 16 MiB a document, 1 MiB a line of a conversation. Beyond: EFBIG */
};

/* Objects that come and go in a directory: looked up and listed by one generator. */
struct ctl_set {
	const struct ctl_row
		*row; /* what each object is: a CTL_DIR row or a file row (its name is not used) */
	/* 0 and *object (new reference), -ENOENT, or the errno of an asked server. */
	int (*find)(const struct ctl_ref *dir, struct call *c, const char *name, void **object);
	int (*each)(const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg),
		void *arg);
	void *(*get)(void *object);
	void (*put)(void *object);
	/* mkdir (row is a directory) or create (row is a file): NULL refuses with EACCES and a sentence. */
	int (*make)(const struct ctl_ref *dir, struct call *c, const char *name, void **object);
	/* rmdir or rm. NULL refuses with EPERM. */
	int (*remove)(const struct ctl_ref *dir, struct call *c, const char *name);
	/* Names of another kind in the same directory: found, but not listed, made or removed. NULL: none. */
	const struct ctl_set *also;
};

/* Does err say that the sandbox could not be asked? Then what was seen there before is still listed. */
static inline bool ctl_link_down(int err)
{
	return err == -EHOSTUNREACH || err == -ETIMEDOUT;
}

struct ctl_dir {
	const char *help;           /* a sentence on the directory, for its help file */
	const struct ctl_row *rows; /* ended by a NULL name */
	const struct ctl_set *set;  /* NULL: none */
	bool list_help;             /* is `help` listed? It always answers */
};

/* --- what the front asks for --- */
extern const struct ctl_dir ctl_server_dir;  /* MNT/ctl (server.c) */
extern const struct ctl_dir ctl_sandbox_dir; /* MNT/NAME/ctl (sandbox_dir.c) */
/* The node of a control directory, new reference. sandbox NULL: the server's. */
int ctl_node_new(struct server *server, struct sandbox *sandbox, struct node **out);

/* --- tables of sets, one file each --- */
extern const struct ctl_dir ctl_runs_dir, ctl_processes_dir, ctl_ports_dir, ctl_ws_dir, ctl_pty_dir,
	ctl_mounts_dir;

/* --- words and values (words.c) --- */
/* Splits a line into words as sandboxfs-ctl(5) says; argv is NULL-terminated, all in one allocation (free(argv)). -EINVAL with a fault: open quote. */
int ctl_split(struct call *c, const char *line, size_t n, int *argc, char ***argv);
/* 500ms 30s 10m 2h or seconds -> ms. 0 or -EINVAL. */
int ctl_parse_duration(const char *s, int64_t *ms);
/* Whole decimal in [min, max]: 0 or -EINVAL. */
int ctl_parse_number(const char *s, int64_t min, int64_t max, int64_t *out);
/* Do editors and desktops try it beside a file they write (.x #x x~ x.sw?)? Refused in all of ctl/, without a request. */
bool ctl_is_editors_name(const char *name);
/* Does the text begin like a JSON object (`{`, blanks, `}` or a string and `:`)? */
bool ctl_is_json(const char *text, size_t n);
/* Parses one whole JSON object: 0 and *out new, or -EINVAL with a fault that names the byte ("JSON ends at byte 14; write a command or one whole object"). */
struct json_object;
int ctl_parse_json(struct call *c, const char *text, size_t n, struct json_object **out);
/*
 * *out: a copy that shares nothing with from (NULL: NULL). json-c counts references without a lock, and what it prints it keeps in the
 * object: what is under a lock of ours is shared with nobody who does not hold it. 0 or -ENOMEM, *out NULL.
 */
int ctl_json_copy(struct json_object *from, struct json_object **out);
/* Every key of o is in keys (NULL-terminated) or -EINVAL naming it. */
int ctl_check_keys(struct call *c, struct json_object *o, const char *const *keys);

#endif
