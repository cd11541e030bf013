//! The join token: everything a new node needs in one line that survives copy and paste.

use quorate_core::ids::ClusterId;
use xxhash_rust::xxh3::xxh3_64;

/// What a join token holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its secret.
    pub secret: String,
    /// Node-to-node addresses of some of its nodes, `host:port`.
    pub addresses: Vec<String>,
}

/// Why a text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has another form.
    #[error(
        "the join token is not of the form q1/CLUSTER/SECRET/ADDRESSES/CHECK; copy it whole from `quorate join-token`"
    )]
    Form,
    /// It was cut or changed on the way.
    #[error("the join token is damaged; copy it whole from `quorate join-token`")]
    Damaged,
}

impl JoinToken {
    /// As one line.
    pub fn to_text(&self) -> String {
        let body = format!("q1/{}/{}/{}", self.cluster, self.secret, self.addresses.join(","));
        format!("{body}/{:08x}", check(&body))
    }

    /// From one line.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let (body, sum) = text.rsplit_once('/').ok_or(TokenError::Form)?;
        let parts: Vec<&str> = body.split('/').collect();
        let ["q1", cluster, secret, addresses] = parts[..] else { return Err(TokenError::Form) };
        if format!("{:08x}", check(body)) != sum {
            return Err(TokenError::Damaged);
        }
        if cluster.is_empty() || secret.is_empty() {
            return Err(TokenError::Form);
        }
        Ok(Self {
            cluster: ClusterId(cluster.to_owned()),
            secret: secret.to_owned(),
            addresses: addresses.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect(),
        })
    }
}

fn check(body: &str) -> u32 {
    xxh3_64(body.as_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_and_a_changed_one_is_told_apart() {
        let token = JoinToken {
            cluster: ClusterId("0123abcd".to_owned()),
            secret: "feed".to_owned(),
            addresses: vec!["127.0.0.1:7000".to_owned(), "[::1]:7001".to_owned()],
        };
        let text = token.to_text();
        assert_eq!(JoinToken::parse(&format!(" {text}\n")), Ok(token));
        assert_eq!(JoinToken::parse(&text.replace("feed", "fead")), Err(TokenError::Damaged));
        assert_eq!(JoinToken::parse("hello"), Err(TokenError::Form));
        assert_eq!(JoinToken::parse(&text[..text.len() - 3]), Err(TokenError::Damaged));
    }
}
