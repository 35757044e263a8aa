/*
 * What the files of the local driver show each other: local.c (life of a sandbox), local_dir.c (what is on disk), local_bwrap.c (the command line of bubblewrap), local_net.c (the network), local_bucket*.c and local_s3fs.c
 * (buckets). Nobody else includes it.
 */
#ifndef SBX_LOCAL_H
#define SBX_LOCAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bucket.h"
#include "buf.h"
#include "call.h"
#include "names.h"
#include "options.h"
#include "run_dir.h"
#include "spawner.h"

/* The driver's state; constant after open but for what lock covers. */
struct local {
	const struct options *options;
	struct spawner *spawner;
	struct names names; /* the data directory */
	struct run_dir run; /* of the sandboxes' sockets */
	bool drop;          /* we are root: sandboxes run as uid and gid */
	uid_t uid;          /* whom the sandboxes' files belong to */
	gid_t gid;
	char *bwrap, *slirp, *ip, *sandboxd; /* absolute; NULL: not found */
	pthread_mutex_t lock;
	struct box *boxes; /* lock: those that run, local.c's */
};

/* --- local_dir.c --- */

/* Finds or makes the data directory of options->server; fills names. */
int local_dir_open(struct local *l, struct call *c);
/* Opens workspace or spool below dir, O_PATH: a directory of the sandbox's uid and no link, else a fault. made: create it if it is not there. */
int local_dir_part(const struct local *l, struct call *c, const char *name, int dir,
	const char *part, bool make, int *fd);
/* Removes a part and what is in it; a part that is not there is fine. */
int local_dir_clear(
	const struct local *l, struct call *c, const char *name, int dir, const char *part);
int local_dir_destroy(struct local *l, struct call *c, const char *name);

/* --- local_net.c --- */

struct net_plan {
	bool attach;     /* a network of its own through slirp4netns; else loopback only */
	char word[128];  /* for status: "internet", "lan", "none", "none: why" */
	uint32_t subnet; /* host order; a /24 */
	char dns[16];
};
void local_net_plan(const struct local *l, struct net_plan *p);
/*
 * Gives the network namespace of pid (bubblewrap's child, not yet let go) what the plan says. *slirp new and *exit_fd, whose closing
 * ends it as well. On failure the sandbox keeps only loopback: p->word then says why; only -EINTR is returned.
 */
int local_net_attach(struct local *l, struct call *c, struct net_plan *p, pid_t pid,
	struct child **slirp, int *exit_fd);

/* --- local_bwrap.c --- */

/* Finds the programs; a fault where one that is needed is missing. */
int local_programs(struct local *l, struct call *c);
void local_programs_free(struct local *l);

enum { /* what sandboxd and bubblewrap have at which number */
	BOX_FD_SOCKET = 3,
	BOX_FD_ARGS,
	BOX_FD_INFO,
	BOX_FD_BLOCK,
	BOX_FD_INFO_IN, /* unused: with it open, bubblewrap's info never meets a pipe without a reader */
	BOX_FD_LIFE,
	BOX_FD_FILES /* the files of /etc follow */
};
enum { BOX_FILES = 12 };

/* Everything a child needs to become a sandbox. */
struct box_plan {
	const char *name;
	int workspace, spool; /* O_PATH */
	const struct net_plan *net;
	struct buf args;      /* NUL-terminated words for --args */
	int files[BOX_FILES]; /* memory files with the content of /etc */
	size_t nfiles;
	struct spawn_mount mounts[3];
	size_t nmounts;
};
/* p->name, workspace, spool and net are set; makes the rest. box_plan_release it in any case. */
int box_plan_make(const struct local *l, struct call *c, struct box_plan *p);
/* The same for the s3fs of a bucket: p->name and spool (its directory for temporary files, buckets/) are set. */
int bucket_plan_make(
	const struct local *l, struct call *c, const struct bucket *b, struct box_plan *p);
/* Where s3fs mounts in the plan above. */
#define BUCKET_PLACE "/.bucket"
enum { BUCKET_FD_USERNS = 3, BUCKET_FD_ARGS, BUCKET_FD_INFO };
/* A program on PATH or where distributions put it: new, absolute, or NULL. */
char *local_program(const char *name);
/* The child's number in what bubblewrap says to --info-fd: 0 and *pid, or -EPROTO. */
int bwrap_child(const char *info, pid_t *pid);
void box_plan_release(struct box_plan *p);
/* A nameless file with this content, at its start. */
int memory_file(const char *name, const void *p, size_t size, int *fd);
/* The directory that covers what a dropped child could not reach, in its own mount namespace. */
const char *local_stage(void);

/* --- local_bucket.c --- */

/* The buckets of a sandbox that runs. Thread-safe. */
struct bucket_set;
/* init: pidfd of its pid 1, borrowed for the life of the set; pid: its number. */
int local_buckets_new(
	struct local *l, const char *name, int init, pid_t pid, struct bucket_set **out);
int local_bucket_mount(struct bucket_set *s, struct call *c, const struct bucket *b);
int local_bucket_unmount(struct bucket_set *s, struct call *c, const char *name);
void local_bucket_each(struct bucket_set *s,
	bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg);
/* No s3fs of it runs any more, and none will. patience_ms: for what they do at the end of the sandbox's mounts; then they are killed. */
void local_buckets_end(struct bucket_set *s, int64_t patience_ms);
void local_buckets_free(struct bucket_set *s); /* NULL is allowed */

/* --- local_s3fs.c --- */

/* *program new, or -ENOTSUP with what is missing. */
int s3fs_find(const struct local *l, struct call *c, char **program);
struct s3fs_place {
	const char *program;
	const struct box_plan *plan;
	int users; /* the user namespace */
	int info;  /* where bubblewrap tells its child */
};
/* on_exit as in spawner.h. */
int s3fs_start(const struct local *l, struct call *c, const struct bucket *b,
	const struct s3fs_place *at, void (*on_exit)(void *arg), void *arg, struct child **out);
/* Its last complaint; empty: none. */
void s3fs_words(struct child *s3fs, struct buf *out);
/* The fault of a mount that failed, from what it said; err: what the kernel said, a negative errno. */
int s3fs_failed(struct call *c, const struct bucket *b, struct child *s3fs, int err);

/* --- local_bucket_child.c: bodies of children (spawner.h), in the user namespace that owns the sandbox's mounts --- */

enum { BUCKET_CHILD_MOUNTS = 3, BUCKET_CHILD_BOX, BUCKET_CHILD_RESULT };
enum bucket_step {
	BUCKET_STEP_LIST,
	BUCKET_STEP_TAKE,
	BUCKET_STEP_DIR,
	BUCKET_STEP_FILLED,
	BUCKET_STEP_PUT
};
struct bucket_attach {
	const char *dir; /* in the sandbox */
	bool read_only;
};
/* Written to BUCKET_CHILD_RESULT. */
struct bucket_attached {
	int step;
	int err;               /* negative errno at that step; 0: it is mounted */
	unsigned major, minor; /* of the file system */
};
/*
 * Lists the bucket once, where s3fs has mounted it (the mount namespace BUCKET_CHILD_MOUNTS), and moves the mount to a directory of the
 * sandbox (BUCKET_CHILD_BOX), which is made if it is not there. arg: struct bucket_attach.
 */
int bucket_attach_body(void *arg);
/* Unmounts the path arg (const char *) in BUCKET_CHILD_MOUNTS: the exit status is 0 or an errno. */
int bucket_detach_body(void *arg);

#endif
