/*
 * What the rooms of the file protocol's server show each other, and nobody else:
 *
 *   fileop_server.c   the server, its batches, space
 *   fileop_handles.c  clients and their handles, leases
 *   fileop_replay.c   remembered replies, and what is not to be done any more
 *   fileop_path.c     paths, files found by them, attributes
 *   fileop_stage.c    stages, and the copying of content
 *   fileop_calls.c    the table of calls, and those on names and attributes
 *   fileop_open.c     opening and closing
 *   fileop_io.c       content;  fileop_dir.c  listings;  fileop_xattr.c  extended attributes
 *
 * Locks: fileop_server.lock covers clients, their handles' table and references, and remembered replies; it is
 * held for look-ups only, never over a system call on files. A handle's lock covers what the
 * handle is (its descriptors, its place in a listing): held shared while its descriptor is used, exclusively while
 * that changes. special_lock covers the cache of file system types. None is taken while another is held.
 */
#ifndef SBX_FILEOP_INTERNAL_H
#define SBX_FILEOP_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "buf.h"
#include "fileop.h"
#include "fileop_server.h"

enum {
	FILEOP_HANDLE_BUCKETS = 256,
	FILEOP_CLIENTS = 64,
	FILEOP_REMEMBERED_MIN = 256,        /* replies kept although acknowledged */
	FILEOP_REMEMBERED_MAX = 4096,       /* replies kept although not */
	FILEOP_REMEMBERED_REPLY = 1 << 20,  /* bytes of one */
	FILEOP_REMEMBERED_BYTES = 16 << 20, /* bytes of all of one client */
	FILEOP_RESULT_ROOM = 8192           /* any result but a READ, READDIR or xattr fits in this */
};

struct fileop_handle {
	/* under fileop_server.lock */
	unsigned refs;
	struct fileop_handle *next;
	/* constant */
	uint64_t number;
	unsigned flags; /* FILEOP_O_* */
	bool special;   /* of a file system like procfs */
	uint64_t dev;
	pthread_rwlock_t lock;
	/* under lock */
	int fd;               /* what READ and WRITE work on: the file, or its stage */
	bool staged;          /* not committed yet */
	int target;           /* staged over an existing file: that file; else -1 */
	uint64_t target_size; /* as they were at the opening */
	struct statx_timestamp target_mtime;
	int dir;      /* staged for a new name: O_PATH descriptor of its directory; else -1 */
	char *name;   /* in dir */
	int temp_dir; /* the stage has a temporary name: where; else -1 */
	char *temp_name;
	char *
		listing; /* of a directory: what getdents64 gave, from listing_at to listing_end not yet told */
	size_t listing_at, listing_end;
};

struct fileop_memory;

struct fileop_client { /* all under fileop_server.lock */
	uint8_t id[FILEOP_ID_SIZE];
	int64_t heard_ms;
	unsigned running; /* batches */
	struct fileop_client *next;
	struct fileop_handle *handles[FILEOP_HANDLE_BUCKETS];
	size_t handle_count;
	struct fileop_memory *oldest, *newest;
	size_t remembered, remembered_bytes;
	uint64_t forgotten; /* the highest seq whose reply was dropped */
};

struct fileop_special {
	uint64_t dev;
	int64_t until_ms; /* 0: unused */
	bool special;
};

struct fileop_server {
	/* constant */
	char *workspace;
	uint64_t min_free;
	uint64_t mark;
	uint8_t boot[FILEOP_ID_SIZE];
	bool has_proc; /* /proc/self/fd/N names our descriptors */

	pthread_mutex_t lock;
	pthread_cond_t remembered; /* with lock: a running batch has ended */
	struct fileop_client *clients;
	size_t client_count;
	int64_t expired_ms; /* when leases were looked at */

	pthread_mutex_t special_lock;
	struct fileop_special special[32];
	size_t special_next;
};

/* One batch while it runs: what each call is given. */
struct fileop_batch {
	struct fileop_server *server;
	struct fileop_client *client;
	uint64_t workspace_dev, workspace_ino; /* 0: there is none */
	size_t room;                           /* bytes that the present call's body may have */
};

/* A call: reads its whole body from in, does it, appends its result. 0 or a negative errno (out is then cut back). */
typedef int fileop_call_fn(struct fileop_batch *b, struct reader *in, struct buf *out);
/* NULL: no such call. */
fileop_call_fn *fileop_find_call(unsigned code);
fileop_call_fn fileop_call_open, fileop_call_close, fileop_call_read, fileop_call_write,
	fileop_call_commit, fileop_call_fsync, fileop_call_readdir, fileop_call_rewinddir,
	fileop_call_fallocate, fileop_call_seek, fileop_call_copy_range, fileop_call_salvage,
	fileop_call_abandon;
fileop_call_fn fileop_call_getxattr, fileop_call_setxattr, fileop_call_listxattr,
	fileop_call_removexattr;

/* --- fileop_server.c --- */
/* -ENOSPC if n more bytes on file system dev would go below min_free (which guards the workspace's alone). */
int fileop_check_space(struct fileop_batch *b, uint64_t dev, uint64_t n);
/* The same for a creation at path. */
int fileop_check_creation(struct fileop_batch *b, char *path);

/* --- fileop_handles.c --- */
int64_t fileop_now_ms(void);
/* The client of that id, with one batch running; NULL: out of memory. */
struct fileop_client *fileop_client_enter(
	struct fileop_server *s, const uint8_t id[FILEOP_ID_SIZE], int64_t now_ms);
void fileop_client_leave(struct fileop_server *s, struct fileop_client *c, int64_t now_ms);
/* Closes the handles of clients unheard of for the time of a lease. */
void fileop_expire(struct fileop_server *s, int64_t now_ms);
void fileop_clients_free(struct fileop_server *s);
/* New with one reference, holding no descriptor; NULL: out of memory. */
struct fileop_handle *fileop_handle_new(uint64_t number, unsigned flags);
/* Puts it into the table, which takes a reference of its own. -EEXIST. */
int fileop_handle_add(struct fileop_batch *b, struct fileop_handle *h);
bool fileop_handle_exists(struct fileop_batch *b, uint64_t number);
/* A new reference or NULL. */
struct fileop_handle *fileop_handle_get(struct fileop_batch *b, uint64_t number);
void fileop_handle_put(struct fileop_server *s, struct fileop_handle *h);
int fileop_handle_remove(struct fileop_batch *b, uint64_t number);

/* A handle that is used: referenced and locked to the end of the scope. */
struct fileop_use {
	struct fileop_server *server;
	struct fileop_handle *h;
};
int fileop_use_shared(struct fileop_batch *b, uint64_t number, struct fileop_use *out);
int fileop_use_alone(struct fileop_batch *b, uint64_t number, struct fileop_use *out);
void fileop_use_end(struct fileop_use *u);
#define AUTO_USE __attribute__((cleanup(fileop_use_end))) struct fileop_use

/* --- fileop_replay.c --- */
enum fileop_replay { FILEOP_REPLAY_NEW, FILEOP_REPLAY_REPEATED, FILEOP_REPLAY_LOST };
/*
 * Is seq new? Then *mem is to be handed to fileop_replay_end. Repeated: the reply (waited for) is appended to
 * reply. Lost: it was done, or may have been, and its reply is not known any more. Or a negative errno.
 */
int fileop_replay_begin(struct fileop_server *s, struct fileop_client *c, uint64_t seq,
	uint64_t acked, struct fileop_memory **mem, struct buf *reply);
/* reply NULL: it failed midway. */
void fileop_replay_end(struct fileop_server *s, struct fileop_client *c, struct fileop_memory *mem,
	const char *reply, size_t size);
void fileop_replay_free(struct fileop_client *c);

/* --- fileop_path.c --- */
/* The arguments of a call; the first thing wrong is kept. */
struct fileop_args {
	struct reader *in;
	int err;
};
/* An absolute path: new; NULL with err set. */
char *fileop_args_path(struct fileop_args *a);
/* Any text without NUL: new; NULL with err set. */
char *fileop_args_text(struct fileop_args *a);
/* All of it was read, and nothing more is there: 0, -EBADMSG, or what was wrong. */
int fileop_args_end(const struct fileop_args *a);

struct fileop_asked { /* a target as it was asked for */
	uint64_t handle;
	char *path; /* owned; NULL with a handle */
	uint64_t dev, ino;
};
void fileop_args_target(struct fileop_args *a, struct fileop_asked *t);
void fileop_asked_end(struct fileop_asked *t);
#define AUTO_ASKED __attribute__((cleanup(fileop_asked_end))) struct fileop_asked

/* Where a name is: for the *at calls. name points into the path it was made from. */
struct fileop_place {
	int dir; /* AT_FDCWD, or owned if own */
	char *name;
	bool own;
};
#define FILEOP_NO_PLACE                                                                            \
	{                                                                                              \
		-1, NULL, false                                                                            \
	}
/* Cuts slashes at the end of path; paths of any length. */
int fileop_place_open(char *path, struct fileop_place *out);
/* The same, with dir the directory itself and name without a slash. -EISDIR for "/". */
int fileop_place_parent(char *path, struct fileop_place *out);
void fileop_place_end(struct fileop_place *p);
#define AUTO_PLACE __attribute__((cleanup(fileop_place_end))) struct fileop_place

/* The file a target means, held by a descriptor. */
struct fileop_file {
	int fd;                /* of the handle, or O_PATH and owned */
	bool by_path;          /* fd is O_PATH */
	struct fileop_use use; /* of the handle */
	struct fileop_place place;
	struct statx st;
};
#define FILEOP_NO_FILE                                                                             \
	{                                                                                              \
		.fd = -1, .place = FILEOP_NO_PLACE                                                         \
	}
int fileop_file_open(struct fileop_batch *b, struct fileop_asked *t, struct fileop_file *out);
void fileop_file_end(struct fileop_file *f);
#define AUTO_FILE __attribute__((cleanup(fileop_file_end))) struct fileop_file

struct fileop_proc_name { /* "/proc/self/fd/N" */
	char text[32];
};
struct fileop_proc_name fileop_proc_name(int fd);

/* statx with all that attributes need. */
int fileop_statx(int dir, const char *name, struct statx *st);
uint64_t fileop_statx_dev(const struct statx *st);
/* 0, or -ESTALE where ino is not 0 and st is another file. */
int fileop_same(const struct statx *st, uint64_t dev, uint64_t ino);
/* What the handle's file is, or will be once it is committed. Its lock is held. */
int fileop_handle_statx(struct fileop_handle *h, struct statx *st);
/* dir and name (or dir alone, name "") are a way to the file, for its file system's type. */
void fileop_put_statx(
	struct fileop_server *s, struct buf *out, const struct statx *st, int dir, const char *name);
int fileop_put_place_attr(struct fileop_server *s, struct buf *out, const struct fileop_place *p);
int fileop_put_handle_attr(struct fileop_server *s, struct buf *out, struct fileop_handle *h);
bool fileop_is_special(struct fileop_server *s, uint64_t dev, int dir, const char *name);
/* The text of the symlink at dir, name (name "": dir itself, O_PATH) as a byte string. */
int fileop_put_link(struct buf *out, int dir, const char *name);
/* Another descriptor of the same file, opened anew. */
int fileop_reopen(struct fileop_server *s, int fd, int flags);

/* --- fileop_open.c --- */
/* A descriptor of the regular file there, or -ELOOP, -EISDIR, -ENXIO, -ESTALE. */
int fileop_open_to_read(
	const struct fileop_place *at, uint64_t dev, uint64_t ino, struct statx *st);

/* --- fileop_stage.c --- */
/* Makes h a stage for a new file at path. -EOPNOTSUPP: not here, open it unstaged. */
int fileop_stage_new(struct fileop_server *s, struct fileop_handle *h, char *path, mode_t mode);
/* Makes h a stage beside target (taken on success), which path names. -EOPNOTSUPP as above. */
int fileop_stage_over(struct fileop_server *s, struct fileop_handle *h, char *path, int target);
/* Its lock is held exclusively. On failure the stage stays. */
int fileop_stage_commit(struct fileop_batch *b, struct fileop_handle *h);
/* Removes the stage's temporary name, if it has one. */
void fileop_stage_drop(struct fileop_handle *h);
/* Up to n bytes from one place to another: how many (short at the end of in), or a negative errno. */
int64_t fileop_copy_bytes(int in, uint64_t in_off, int out, uint64_t out_off, uint64_t n);
/* Makes out's content size bytes equal to in's, keeping holes. */
int fileop_copy_content(int in, int out, uint64_t size);

#endif
