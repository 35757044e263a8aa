/*
 * What all rooms of sandboxd share: its settings and the tables that live as long as it does.
 * Made in main.c and handed down; nothing here changes while it serves but `stage`, `ends` and `requests`.
 *
 * Lock order: the table of commands, then one command, then its spool. The lists of watches and
 * of open file handles have locks of their own, which are never held together with these.
 */
#ifndef SANDBOXD_SERVER_H
#define SANDBOXD_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

struct commands;
struct sessions;
struct fileop_server;
struct check_table;
struct changes;
struct interpreter;

enum server_stage {
	STAGE_SERVING,
	STAGE_STOPPING, /* commands are being ended, nothing new is started */
	STAGE_CLOSING   /* streams that still go on are cut */
};

struct server {
	const char *workspace; /* absolute, without a slash at its end (but for "/") */
	const char *spool_dir;
	const char *shell;      /* bash where there is one */
	char *const *inherited; /* of our environment what programs get, as environ is; NULL: nothing */
	uint64_t output_max;
	uint64_t min_free;
	uint64_t processes; /* limit for commands; 0: none */
	struct rlimit
		own_files;      /* the limit of descriptors it was started with: commands get it back */
	int64_t started_ms; /* CLOCK_REALTIME */

	struct commands *commands;
	struct sessions *sessions;
	struct fileop_server *files;
	struct check_table *checks;
	struct changes *changes;
	struct interpreter *interpreter;

	atomic_int stage;
	atomic_uint_fast64_t ends;     /* how many commands have ended */
	pthread_mutex_t requests_lock; /* covers requests */
	pthread_cond_t requests_over;
	size_t requests; /* under way; streams too */
	int stop_fd;     /* an eventfd that becomes readable, and stays so, with STAGE_STOPPING */
};

#endif
