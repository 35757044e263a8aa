/*
 * What the files of the local driver show each other: local.c (life of a sandbox), local_dir.c (what is on disk), local_bwrap.c
 * (the command line of bubblewrap), local_net.c (the network). Nobody else includes it.
 */
#ifndef SBX_LOCAL_H
#define SBX_LOCAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "call.h"
#include "options.h"
#include "spawner.h"

/* The driver's state; constant after open but for what lock covers. */
struct local {
	const struct options *options;
	struct spawner *spawner;
	int data;        /* the data directory, O_PATH */
	char *data_path; /* for sentences and bubblewrap */
	char *run_path;  /* private directory of this program's sockets */
	int run_lock;    /* held while the program lives: tells others that run_path is in use */
	bool drop;       /* we are root: sandboxes run as uid and gid */
	uid_t uid;       /* whom the sandboxes' files belong to */
	gid_t gid;
	char *bwrap, *slirp, *ip, *sandboxd; /* absolute; NULL: not found */
	pthread_mutex_t lock;
	unsigned sockets; /* lock: how many have been named */
};

/* --- local_dir.c --- */

/* Finds or makes the data directory of options->server; fills data and data_path. */
int local_dir_open(struct local *l, struct call *c);
/* True for [A-Za-z0-9][A-Za-z0-9._-]{0,62}. */
bool local_name_valid(const char *name);
/* The directory of a sandbox, O_PATH, never through a link: *fd new, or -ENOENT, or an error with a fault. */
int local_dir_find(const struct local *l, struct call *c, const char *name, int *fd);
int local_dir_create(struct local *l, struct call *c, const char *name);
int local_dir_each(const struct local *l, bool (*cb)(const char *name, void *arg), void *arg);
/*
 * Its lock: 0 and *fd (the lock is held until it is closed), or -EBUSY with `in use by pid N (PATH)` in the fault.
 * An OFD lock: the kernel drops it with the program, however that ends, and it can be asked about without being taken.
 */
int local_dir_lock(const struct local *l, struct call *c, const char *name, int dir, int *fd);
/* Notes in the lock what runs under it, for the next holder to wait for. */
int local_dir_note(int lock, pid_t pid);
/* 0 free, 1 and `pid N, PATH`. */
int local_dir_in_use(const struct local *l, const char *name, char *detail, size_t size);
/* Opens workspace or spool below dir, O_PATH: a directory of the sandbox's uid and no link, else a fault. made: create it if it is not there. */
int local_dir_part(const struct local *l, struct call *c, const char *name, int dir,
	const char *part, bool make, int *fd);
/* Removes a part and what is in it; a part that is not there is fine. */
int local_dir_clear(
	const struct local *l, struct call *c, const char *name, int dir, const char *part);
int local_dir_destroy(struct local *l, struct call *c, const char *name);

/* --- local_run.c --- */

/* The private directory for sockets; leftovers of programs that died are removed. */
int local_run_open(struct local *l, struct call *c);
void local_run_close(struct local *l);
/* A listening socket at *path (new), removed with unlink. */
int local_run_listen(struct local *l, struct call *c, char **path, int *fd);

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
void box_plan_release(struct box_plan *p);
/* A nameless file with this content, at its start. */
int memory_file(const char *name, const void *p, size_t size, int *fd);
/* The directory that covers what a dropped child could not reach, in its own mount namespace. */
const char *local_stage(void);

#endif
