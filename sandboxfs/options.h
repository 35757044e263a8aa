/*
 * Options of a mount: one table with name, type, default, help (options.c), read once, then constant.
 */
#ifndef SBX_OPTIONS_H
#define SBX_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>

enum idmap { IDMAP_USER, IDMAP_NONE };
enum symlink_mode { SYMLINKS_REWRITE, SYMLINKS_VERBATIM };
enum net_mode { NET_INTERNET, NET_LAN, NET_NONE };

struct options {
	char *server;     /* as given; "local:" by default */
	char *mountpoint; /* absolute */
	bool foreground, debug, ro, allow_other, allow_root, auto_unmount, list_root;
	int64_t timeout_ms;  /* timeout=, 60 s */
	int64_t start_ms;    /* start=, 150 s */
	int64_t drain_ms;    /* drain=, 30 s */
	uint64_t output_max; /* output-max=, 256 MiB */
	bool has_umask;
	mode_t umask;
	uid_t uid; /* who owns what is shown (idmap=user); default the mounting user */
	gid_t gid;
	enum idmap idmap;
	enum symlink_mode symlinks;
	char *sandbox; /* sandbox=NAME or NULL */
	char *subdir;  /* subdir=workspace or NULL */
	bool create;   /* make that sandbox if there is none */
	char *token_file;
	char *preview_host; /* of URLs of ports/; NULL: they are relayed to this host */
	/* local: */
	enum net_mode net;
	uint64_t min_free;        /* min-free=, bytes */
	uint64_t limit_processes; /* limits=processes:N,memory:SIZE,tmp:SIZE; 0: default */
	uint64_t limit_memory;
	uint64_t limit_tmp;
	struct rlimit files; /* RLIMIT_NOFILE the program was given (main.c); rlim_max 0: unknown */
	char *pass;          /* options for the kernel, as they are */
	/* of the command line */
	const char
		*for_local; /* an option that was given and means something on local: alone; NULL: none */
	char *given_mountpoint;
	bool unmount, kill, help, version;
};

/* Reads a command line: 0, or a negative errno after it printed the sentence. options_release it in any case. */
int options_parse(int argc, char **argv, struct options *o);
void options_release(struct options *o);
void options_help(FILE *to);

#endif
