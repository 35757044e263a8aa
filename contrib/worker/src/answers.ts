// What is sent back when something cannot be done: {"error","code"}, the shape and, where it has one, the code of the stock bridge.

// What the sender of a request has done wrong.
export class Refused extends Error {
	constructor(
		message: string,
		readonly code = 'invalid_request',
		readonly status = 400,
	) {
		super(message);
	}
}

export function failure(error: string, code: string, status: number, headers?: HeadersInit): Response {
	return Response.json({ error, code }, { status, headers });
}

// Across objects an error keeps its message, which then begins with its class's name; with newer compatibility dates it keeps its name.
function named(thrown: unknown): { name: string; message: string } {
	const { name, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
	const told = name === 'Error' ? /^(\w+Error): (.*)$/s.exec(message) : null;
	return told ? { name: told[1], message: told[2] } : { name, message };
}

const STATUS: Record<string, number> = {
	BackupExpiredError: 400,
	BackupNotFoundError: 404,
	ContainerUnavailableError: 503,
	CustomDomainRequiredError: 400,
	InvalidBackupConfigError: 400,
	InvalidMountConfigError: 400,
	MissingCredentialsError: 400,
	OperationInterruptedError: 409,
	SandboxSecurityError: 400,
};

export function failed(thrown: unknown): Response {
	if (thrown instanceof Refused) return failure(thrown.message, thrown.code, thrown.status);
	const { name, message } = named(thrown);
	if (message.includes('instance limit reached')) return failure(message, 'capacity_exceeded', 503, { 'Retry-After': '5' });
	const status = STATUS[name] ?? 502;
	if (name === 'SandboxSecurityError') return failure(message, 'invalid_request', status);
	// CustomDomainRequiredError -> CUSTOM_DOMAIN_REQUIRED, the code that the SDK gives it
	const code = name.replace(/Error$/, '').replace(/(?<=[a-z])(?=[A-Z])/g, '_');
	return failure(message, code.toUpperCase() || 'INTERNAL_ERROR', status);
}
